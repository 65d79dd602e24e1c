# shellcheck shell=bash
# Scratch clusters for the demo and the benchmarks.  Sourced by bash, never run.
#
# Everything lives in one directory in TMPDIR or /tmp that only the server's owner can
# enter, and is stopped and removed when the script that sourced this ends,
# however it ends.  The servers are a private copy of the installed PostgreSQL
# with this tree's wh_worker, so that nothing has to be installed and nothing
# else is measured or shown.  PostgreSQL refuses to run as root, so for root the servers
# run as "postgres"; psql always runs as the caller, who can read the project's
# files.  Nothing of the caller's environment may lead a client elsewhere.

set -euo pipefail

unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE \
	PGOPTIONS PGSSLMODE PGSSLROOTCERT PGSSLCERT PGSSLKEY PGAPPNAME PGTZ PGDATESTYLE
export PGCLIENTENCODING=UTF8 PGCONNECT_TIMEOUT=10 LC_ALL=C.UTF-8

bindir=
psql=()
scratch=
clusters=()
declare -A cluster_port=()

fail()
{
	printf '%s\n' "$*" >&2
	exit 1
}

# Runs a command as the owner of the servers, from a directory it may enter.
as_server()
{
	if [ "$(id -u)" -eq 0 ]; then
		(cd / && runuser -u postgres -- "$@")
	else
		(cd / && "$@")
	fi
}

scratch_begin()
{
	[ "$(id -u)" -ne 0 ] || id -u postgres >/dev/null 2>&1 ||
		fail "root needs a user \"postgres\" to run the servers as"
	scratch=$(as_server mktemp -d "${TMPDIR:-/tmp}/wh_$1.XXXXXX")
	trap scratch_end EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	bindir=$(ci/private-server "$scratch/server" 2>"$scratch/build.log") ||
		fail "the build failed: $(cat "$scratch/build.log")"
	psql=("$bindir/psql" -X -q -v ON_ERROR_STOP=1 -P pager=off -P footer=off)
	as_server "$bindir/initdb" -D "$scratch/initial" -U postgres --auth=trust \
		--encoding=UTF8 --locale=C --no-sync >"$scratch/initdb.log" 2>&1 ||
		fail "initdb failed: $(cat "$scratch/initdb.log")"
}

# Stops every server and removes the directory; the exit status stays.
scratch_end()
{
	local status=$? name

	trap - EXIT INT TERM HUP
	set +e
	if [ "$status" -eq 0 ] && [ -n "${KEEP:-}" ] && [ "$KEEP" != 0 ]; then
		exit 0
	fi
	if [ "$status" -ne 0 ]; then
		for name in "${clusters[@]}"; do
			grep -E ' (WARNING|ERROR|FATAL|PANIC): ' "$scratch/$name.log" 2>/dev/null |
				tail -n 5 | sed "s/^/$name: /" >&2
		done
	fi
	for name in "${clusters[@]}"; do
		as_server "$bindir/pg_ctl" -D "$scratch/$name" -s -m immediate stop >/dev/null 2>&1
	done
	rm -rf "$scratch"
	exit "$status"
}

# cluster_new NAME: a data directory; settings come on standard input.
cluster_new()
{
	local name=$1

	as_server cp -r "$scratch/initial" "$scratch/$name"
	{
		cat <<-SETTINGS
			listen_addresses = ''
			unix_socket_directories = '$scratch/$name'
			timezone = 'UTC'
			log_timezone = 'UTC'
			max_wal_size = '2GB'
		SETTINGS
		cat
	} | as_server tee -a "$scratch/$name/postgresql.conf" >/dev/null
	clusters+=("$name")
}

# cluster_tls NAME: TCP on the loopback, with TLS and scram passwords only.
cluster_tls()
{
	local name=$1

	as_server cp "$scratch/server.crt" "$scratch/server.key" "$scratch/$name/"
	as_server tee -a "$scratch/$name/postgresql.conf" >/dev/null <<-SETTINGS
		listen_addresses = '127.0.0.1'
		ssl = on
		password_encryption = 'scram-sha-256'
	SETTINGS
	as_server tee "$scratch/$name/pg_hba.conf" >/dev/null <<-HBA
		local   all all               trust
		hostssl all all 127.0.0.1/32  scram-sha-256
	HBA
}

port_is_free()
{
	! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Another process may take the port between the test and the start, so a start
# that fails is tried with other ports.
cluster_start()
{
	local name=$1 port tries=0

	while [ $((tries += 1)) -le 5 ]; do
		port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
		port_is_free "$port" || continue
		if as_server "$bindir/pg_ctl" -D "$scratch/$name" -l "$scratch/$name.log" -s -w \
			-o "-p $port" start >/dev/null 2>&1 </dev/null; then
			cluster_port[$name]=$port
			return 0
		fi
	done
	fail "server $name does not start: $(tail -n 5 "$scratch/$name.log" 2>/dev/null)"
}

# cluster_sql NAME DATABASE [psql's arguments]: as its superuser, by its socket.
cluster_sql()
{
	local name=$1 database=$2

	shift 2
	"${psql[@]}" -h "$scratch/$name" -p "${cluster_port[$name]}" -U postgres -d "$database" "$@"
}

# A certificate authority and one certificate for 127.0.0.1, good for two days.
scratch_certificates()
{
	# shellcheck disable=SC2016 # expanded by the inner shell
	as_server sh -c '
		umask 077 && cd "$1" &&
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
			-subj "/CN=scratch authority" -keyout ca.key -out ca.crt &&
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
			-subj "/CN=127.0.0.1" -keyout server.key -out server.csr &&
		echo "subjectAltName = IP:127.0.0.1" >server.ext &&
		openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
			-extfile server.ext -out server.crt
	' sh "$scratch" >"$scratch/openssl.log" 2>&1 ||
		fail "openssl failed: $(cat "$scratch/openssl.log")"
}

# cluster_warehouse [setting]: a started server "warehouse" with the extension
# in its database "warehouse".
cluster_warehouse()
{
	# shellcheck disable=SC2016 # expanded by the inner shell
	as_server sh -c 'umask 077 && openssl rand -hex 32 >"$1"' sh "$scratch/wh_worker.keys"
	cluster_new warehouse <<-SETTINGS
		shared_preload_libraries = 'wh_worker'
		wh_worker.key_file = '$scratch/wh_worker.keys'
		wh_worker.databases = 'warehouse'
		wh_worker.max_workers = 4
		max_worker_processes = 16
		$*
	SETTINGS
	cluster_start warehouse
	cluster_sql warehouse postgres -c 'CREATE DATABASE warehouse'
	cluster_sql warehouse warehouse -c 'CREATE EXTENSION wh_worker'
}
