# shellcheck shell=bash
# Private PostgreSQL servers. Sourced by everything that needs one; test/server is its command.
#
# A private server is a copy of the installed server's files (a "tree"), a data directory and a Unix socket. There is
# no TCP port, and neither an existing server nor the system's extension directory is ever touched. PostgreSQL finds its
# files relative to its own binary, so the copy keeps the original's layout under another root. The copy's pg_config
# answers with paths inside the copy: with it, a plain `make install` installs there.
#
# A server directory holds: data/ (data directory), log, s/ (socket), tree (link to the tree) and the mark .rebate-server.

set -euo pipefail
umask 022                       # the server's user must be able to read what root writes

rb_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
rb_version=0.2.0
export rb_top rb_version

rb_say() { printf '%s\n' "$*" >&2; }
rb_die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# The caller's PGHOST, PGSERVICE, PGOPTIONS ... must not lead to his own server, nor his make flags into our builds.
rb_clean_env() {
	local v
	for v in $(compgen -e PG); do
		case $v in PG_*) ;; *) unset "$v" ;; esac
	done
	unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR PSQLRC
	export LC_ALL=C.UTF-8
}

# Where the installed server is. Sets rb_bindir, rb_pkglibdir, rb_sharedir, rb_major; and rb_root, which is empty but in
# the environment of a private server, where the files to copy are that server's, with the extension built there.
rb_find_pg() {
	rb_pg_config=${PG_CONFIG:-pg_config}
	command -v "$rb_pg_config" >/dev/null || rb_die "no pg_config found: run test/deps, or set PG_CONFIG"
	rb_root=
	case $("$rb_pg_config" --bindir) in
	"${REBATE_TREE:-//}"/*) rb_root=$REBATE_TREE ;;
	esac
	rb_bindir=$(rb_pg_path --bindir)
	rb_pkglibdir=$(rb_pg_path --pkglibdir)
	rb_sharedir=$(rb_pg_path --sharedir)
	rb_major=$("$rb_pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
	[ -x "$rb_root$rb_bindir/postgres" ] || rb_die "no server in $rb_bindir: run test/deps, or set PG_CONFIG"
	[ "$rb_major" -ge 15 ] || rb_die "PostgreSQL $rb_major is too old: rebate needs 15 or later"
}

# What pg_config says, without the root of a private tree.
rb_pg_path() {
	local path
	path=$("$rb_pg_config" "$1")
	printf '%s\n' "${path#"$rb_root"}"
}

# The server refuses to run as root; then it runs as postgres, or else nobody. Sets rb_user.
rb_find_user() {
	rb_user=$(id -un)
	if [ "$(id -u)" = 0 ]; then
		rb_user=postgres
		getent passwd postgres >/dev/null || rb_user=nobody
	fi
}

# Runs a command as the server's user.
rb_as() {
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid="$rb_user" --regid="$(id -g "$rb_user")" --init-groups \
			env HOME="${rb_home:-/}" USER="$rb_user" LOGNAME="$rb_user" "$@"
	else
		"$@"
	fi
}

# Gives a directory to the server's user and nobody else.
rb_own() {
	chmod 0700 "$1"
	if [ "$(id -u)" = 0 ]; then chown "$rb_user" "$1"; fi
}

# Makes a temporary directory that the server's user can reach; prints its name.
rb_mktemp() {
	local base dir
	for base in "${TMPDIR:-/tmp}" /tmp; do
		dir=$(mktemp -d "$base/rebate.XXXXXX") || continue
		rb_own "$dir"
		if (cd / && rb_as test -w "$dir"); then
			printf '%s\n' "$dir"
			return
		fi
		rmdir "$dir"            # TMPDIR below /root, for example
	done
	rb_die "user $rb_user can use neither ${TMPDIR:-/tmp} nor /tmp"
}

# Copies the server's files to a new root, $1. Bitcode is left out: half the size, only for inlining by JIT.
rb_copy_tree() {
	local tree=$1 dir lib
	for dir in "$rb_bindir" "$rb_pkglibdir" "$rb_sharedir"; do
		mkdir -p "$tree$dir"
		tar -C "$rb_root$dir" --exclude=./bitcode --exclude=./man -cf - . | tar -C "$tree$dir" --no-same-owner -xf -
	done
	# The headers and libpq stay where they are; the links make the copy's pg_config true.
	for dir in "$(rb_pg_path --includedir)" "$(rb_pg_path --includedir-server)"; do
		if [ -d "$rb_root$dir" ] && [ ! -e "$tree$dir" ]; then
			mkdir -p "$tree${dir%/*}"
			ln -s "$(readlink -f "$rb_root$dir")" "$tree$dir"
		fi
	done
	dir=$(rb_pg_path --libdir)
	mkdir -p "$tree$dir"
	for lib in "$rb_root$dir"/libpq.*; do
		if [ -e "$lib" ] && [ ! -e "$tree$dir/${lib##*/}" ]; then
			ln -s "$(readlink -f "$lib")" "$tree$dir/${lib##*/}"
		fi
	done
	# An installed rebate is not the one to be tested.
	if [ -z "$rb_root" ]; then
		rm -f "$tree$rb_pkglibdir"/rebate.so "$tree$rb_sharedir"/extension/rebate{.control,--*}
	fi
}

# Copies the checkout to $1, where the server's user can read it and the build leaves nothing behind in the checkout.
# Objects of an earlier build in $1 stay, so that a second build is a short one.
rb_copy_source() {
	local dir=$1
	mkdir -p "$dir"
	find "$dir" -type f ! -name '*.o' ! -name '*.so' -delete
	tar -C "$rb_top" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude='./results' \
		--exclude='./regression.*' --exclude='./output_iso' --exclude="./extension/rebate--$rb_version.sql" \
		--exclude="./extension/rebate--*--$rb_version.sql" -cf - . |
		tar -C "$dir" --no-same-owner -xf -
	chmod -R a+rX,u+w "$dir"
}

# Builds the source in $1 and installs it into the tree $2.
rb_build() {
	local src=$1 tree=$2
	make -s -C "$src" -j"$(nproc)" PG_CONFIG="$tree$rb_bindir/pg_config" all &&
		make -s -C "$src" PG_CONFIG="$tree$rb_bindir/pg_config" install >/dev/null
}

# initdb with the tree $1 into the data directory $2.
rb_initdb() {
	local tree=$1 data=$2
	rb_as "$tree$rb_bindir/initdb" --no-sync --username=postgres --auth=trust --encoding=UTF8 \
		--locale=C.UTF-8 -D "$data" >"$data.initdb" 2>&1 || { cat "$data.initdb" >&2; rb_die "initdb failed"; }
	rm -f "$data.initdb"
	rb_as tee -a "$data/postgresql.conf" >/dev/null <<-'CONF'

		listen_addresses = ''
		unix_socket_permissions = 0700
		timezone = 'UTC'
		log_line_prefix = '%m [%p] %q%d %a '
		max_prepared_transactions = 20
		wal_level = logical
		shared_buffers = '64MB'
		jit = off
	CONF
}

# A server's settings that trade safety against a crash of the machine for speed; a crash of the server loses nothing.
rb_unsafe_settings=$'fsync = off\nfull_page_writes = off'

# Makes the server directory $1 on the tree $2. $3: lines of settings. $4: a data directory to copy instead of initdb.
rb_create() {
	local dir=$1 tree=$2 settings=${3:-} template=${4:-} socket
	mkdir -p "$dir"
	rb_own "$dir"
	(cd / && rb_as test -w "$dir") || rb_die "user $rb_user cannot reach $dir; take a directory below /tmp"
	: >"$dir/.rebate-server"
	[ "$dir/tree" -ef "$tree" ] || ln -sfn "$tree" "$dir/tree"
	# A socket's path is limited to about 107 bytes.
	if [ ${#dir} -le 80 ]; then socket=$dir/s; mkdir -p "$socket"; else socket=$(rb_mktemp); fi
	rb_own "$socket"
	printf '%s\n' "$socket" >"$dir/socket"
	if [ -n "$template" ]; then
		rb_as cp -a "$template" "$dir/data"
	else
		(cd / && rb_initdb "$tree" "$dir/data")
	fi
	printf "unix_socket_directories = '%s'\n%s\n" "$socket" "$settings" |
		rb_as tee -a "$dir/data/postgresql.conf" >/dev/null
}

# Starts, stops the server of directory $1. Called from /, which the server's user can always enter.
rb_start() {
	local dir=$1
	(cd / && rb_as "$dir/tree$rb_bindir/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 180 -s start </dev/null >&2) ||
		{ tail -n 20 "$dir/log" >&2; return 1; }
}

rb_running() {
	[ -f "$1/data/postmaster.pid" ] && (cd / && rb_as "$1/tree$rb_bindir/pg_ctl" -D "$1/data" status >/dev/null 2>&1)
}

rb_stop() {
	local dir=$1 mode=${2:-fast}
	rb_running "$dir" || return 0
	(cd / && rb_as "$dir/tree$rb_bindir/pg_ctl" -D "$dir/data" -w -t 180 -s -m "$mode" stop >&2)
}

# Stops the server and removes its directory, whatever state it is in.
rb_remove() {
	local dir=$1 socket
	[ -e "$dir/.rebate-server" ] || return 0
	rb_stop "$dir" fast || rb_stop "$dir" immediate || rb_say "the server in $dir does not stop"
	socket=$(cat "$dir/socket" 2>/dev/null) || socket=
	if [ -n "$socket" ] && [ "$socket" != "$dir/s" ]; then rm -rf "$socket"; fi
	rm -rf "$dir"
}

# The environment of clients of the server in $1: set here, or printed for a shell.
# PATH leads to the private pg_config, so that make installs there.
rb_client_vars() {
	local dir=$1 tree
	tree=$(readlink -f "$dir/tree")
	printf 'export PGHOST=%q PGPORT=5432 PGUSER=postgres PGDATABASE=postgres\n' "$(cat "$dir/socket")"
	printf 'export PATH=%q:"$PATH" REBATE_TREE=%q\n' "$tree$rb_bindir" "$tree"
	printf 'unset PG_CONFIG\n'
}

rb_client_env() { eval "$(rb_client_vars "$1")"; }
