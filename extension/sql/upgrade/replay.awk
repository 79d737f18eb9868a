# Makes the upgrade script to this version of the pieces of the install script:
#
#	awk -f replay.awk OLD-INSTALL-SCRIPT PIECE...
#
# Functions, procedures and views are replaced, comments and revokes are said again.
# What cannot be replaced (tables, event triggers, their first rows, grants to
# PUBLIC) is made if the old version had no statement like it, and left alone if it
# had the same.  Another statement about the same object is an error: how to get
# from one to the other is for a person to write.  DO blocks belong to the install
# script only.

# Is the end of the line inside a string?  Sets "quote" to what ends it.
function follow(line,    rest, token)
{
	rest = line
	while (rest != "") {
		if (quote != "") {
			if (!(token = index(rest, quote)))
				return
			rest = substr(rest, token + length(quote))
			quote = ""
		} else if (match(rest, /--|'|\$[a-z]*\$/)) {
			token = substr(rest, RSTART, RLENGTH)
			rest = substr(rest, RSTART + RLENGTH)
			if (token == "--")
				return
			quote = token
		} else
			return
	}
}

# What a statement is about, for those that are not replaced: a table, an event
# trigger ...
function subject(text,    word)
{
	split(text, word, /[ \t\n(]+/)
	if (word[1] == "CREATE" && word[2] == "EVENT")
		return "event trigger " word[4]
	if (word[1] == "ALTER" && word[2] == "EVENT")
		return "state of event trigger " word[4]
	if (word[1] == "CREATE" && (word[2] == "TABLE" || word[2] == "TYPE" || word[2] == "SEQUENCE"))
		return tolower(word[2]) " " word[3]
	if (word[1] == "INSERT")
		return "rows of " word[3]
	if (word[1] == "GRANT")
		return text
	return ""
}

function fail(message)
{
	print FILENAME ": " message > "/dev/stderr"
	failed = 1
	exit 1
}

function statement(text,    about)
{
	about = subject(text)
	if (reading_old) {
		if (about != "")
			old[about] = text
		return
	}
	if (text ~ /^(CREATE FUNCTION|CREATE PROCEDURE|CREATE VIEW) /)
		sub(/^CREATE /, "CREATE OR REPLACE ", text)
	else if (text ~ /^DO /)
		return
	else if (about != "") {
		if (about in old) {
			if (old[about] != text)
				fail(about " is not as it was: write the change into the upgrade script by hand")
			return
		}
	} else if (text !~ /^(COMMENT ON|REVOKE) /)
		fail("cannot be replayed: " text)
	print text
}

FNR == 1 {
	files++
	reading_old = files == 1
	if (quote != "" || collected != "")
		fail("the file before ends inside a statement")
}

quote == "" && collected == "" && /^(--.*|[ \t]*|\\echo .*)$/ { next }

{
	follow($0)
	collected = collected == "" ? $0 : collected "\n" $0
	if (quote == "" && $0 ~ /;[ \t]*$/) {
		text = collected
		collected = ""
		statement(text)
	}
}

END {
	if (!failed && (quote != "" || collected != ""))
		fail("the last statement does not end")
	exit failed
}
