#!/usr/bin/env bash
# The whole story with a database: a private Postgres, pgbench at work in it, its tables copied and followed, and their sums at several
# moments, which it checks. Nothing but the lake is left behind; its place is the last line.
set -euo pipefail

alluvium=${1:?the program}
seconds=${SECONDS_OF_WORK:-10}
bin=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/pgbench' | sort -V | tail -1)")
site=$(mktemp -d "${TMPDIR:-/tmp}/alluvium-demo-XXXXXX")
server=$(mktemp -d "${TMPDIR:-/tmp}/alluvium-demo-server-XXXXXX")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# Postgres does not run as root.
as_user() {
  if [ "$(id -u)" = 0 ]; then
    setpriv --reuid=postgres --regid=postgres --init-groups env -i PATH="$bin:/usr/bin:/bin" HOME=/tmp LANG=C.UTF-8 "$@"
  else
    "$@"
  fi
}

service=
finish() {
  [ -z "$service" ] || kill -KILL "$service" 2> /dev/null || true
  [ ! -f "$server/data/postmaster.pid" ] || as_user "$bin/pg_ctl" -D "$server/data" -m immediate -s stop || true
  rm -rf "$server"
}
trap finish EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { echo "$*" >&2; exit 1; }
sql() { "$bin/psql" -h 127.0.0.1 -p "$port" -U postgres -d bank -Atc "$1"; }
query() { "$alluvium" query --config "$site/alluvium.toml" "$@"; }

say "A private Postgres, and pgbench's four tables with 500,000 accounts"
if [ "$(id -u)" = 0 ]; then chown postgres "$server"; fi
as_user "$bin/initdb" -D "$server/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 > "$site/initdb.log"
as_user "$bin/pg_ctl" -D "$server/data" -l "$server/log" -s -w \
  -o "-p $port -h 127.0.0.1 -k $server -c wal_level=logical -c fsync=off" start
"$bin/createdb" -h 127.0.0.1 -p "$port" -U postgres bank
"$bin/pgbench" -h 127.0.0.1 -p "$port" -U postgres -i -q -s 5 bank 2> /dev/null

cat > "$site/alluvium.toml" << TOML
lake = "lake"
http = { address = "" }

[pipelines.bank.postgres]
url = "postgresql://postgres@127.0.0.1:$port/bank"
follow = ["public.pgbench_*"]
create = true

[pipelines.bank.commit]
interval = "1 s"
TOML
cat "$site/alluvium.toml"

say "Four clients work for $seconds s; alluvium copies the tables meanwhile, and follows"
"$bin/pgbench" -h 127.0.0.1 -p "$port" -U postgres -n -c 4 -T "$seconds" bank > "$site/pgbench.log" 2>&1 &
clients=$!
"$alluvium" run --config "$site/alluvium.toml" > "$site/alluvium.log" 2>&1 &
service=$!
wait "$clients"
# A table that only another run copies shows nothing of the moments before.
for table in accounts tellers branches history; do
  until "$alluvium" history --config "$site/alluvium.toml" "public.pgbench_$table" 2> /dev/null | grep alluvium_bank: > /dev/null; do
    kill -0 "$service" || fail "alluvium has ended: $(tail -3 "$site/alluvium.log")"
    sleep 0.2
  done
done
kill -TERM "$service"
wait "$service"
service=
"$alluvium" run --config "$site/alluvium.toml" --until-caught-up > "$site/alluvium.log" 2>&1
grep -E 'tps|processed' "$site/pgbench.log"

say "The four tables, and the newest versions of each, with the WAL that they hold"
for table in accounts tellers branches history; do
  printf '\npublic.pgbench_%s\n' "$table"
  "$alluvium" history --config "$site/alluvium.toml" --limit 3 "public.pgbench_$table"
done

say "The four sums at three moments, across all tables; they are one, as they were in the database"
sums='SELECT (SELECT sum(abalance) FROM public.pgbench_accounts) AS accounts, (SELECT sum(tbalance) FROM public.pgbench_tellers) AS tellers,
  (SELECT sum(bbalance) FROM public.pgbench_branches) AS branches, (SELECT coalesce(sum(delta), 0) FROM public.pgbench_history) AS history,
  (SELECT count(*) FROM public.pgbench_history) AS transactions'
positions=$("$alluvium" history --config "$site/alluvium.toml" --limit 1000 public.pgbench_history | grep -o 'alluvium_bank:[^ ]*' \
  | sed 's/:.*\.\./:/' | awk '{ all[NR] = $0 } END { print all[NR - 1]; print all[int(NR / 2)]; print all[1] }')
for position in $positions; do
  echo "$position"
  query "$sums" --position "$position"
  newest=$(query "$sums" --position "$position" --format csv | tail -1)
  IFS=, read -r accounts tellers branches history _ <<< "$newest"
  [ "$accounts $accounts $accounts" = "$tellers $branches $history" ] || fail "the sums differ at $position: $newest"
done

say "And in the database now"
there=$(sql "$sums")
echo "$there"
[ "${there//|/,}" = "$newest" ] || fail "the newest sums in the lake are others: $newest"

say "Read it with Python: QueryBuilder().register('a', DeltaTable('$site/lake/public/pgbench_accounts')).execute('SELECT sum(abalance) FROM a')"
echo "The lake is at $site/lake"
