# Reads TAP, or a line "N passed, N failed[, N skipped]", and prints "passed failed skipped".
# A wrong or missing plan, or "Bail out!", is a failure of its own.
/^[0-9]+ passed, [0-9]+ failed/ { p = $1; f = $3; s = ($6 ~ /^skipped/) ? $5 : 0; plain = 1 }
/^1\.\.[0-9]+/ { plan = substr($1, 4) + 0; planned++; if (plan == 0 && /[Ss][Kk][Ii][Pp]/) allskipped = 1 }
/^(not )?ok([ \t]|$)/ {
	seen++
	if (/#[ \t]*[Ss][Kk][Ii][Pp]/) skipped++
	else if (/^not ok/ && !/#[ \t]*[Tt][Oo][Dd][Oo]/) failed++
	else passed++
}
/^Bail out!/ { bad++ }
END {
	if (seen || planned) {
		if (planned != 1 || plan != seen) bad++
		if (allskipped) skipped++
	} else if (plain) {
		passed = p; failed = f; skipped = s
	}
	if (!(passed + failed + skipped)) bad++
	printf "%d %d %d\n", passed, failed + bad, skipped
}
