#!/usr/bin/env bash
# Fetches PostgreSQL servers of several major versions for the tests (15 MB each from Maven Central: server and contrib, no clients)
# into $ALLUVIUM_CACHE/postgres/MAJOR. Does nothing for those that are there; several may run at once.
#
#   scripts/fetch-postgres.sh              all versions below, 15 where Debian's package is another one
#   scripts/fetch-postgres.sh 18.6.0 …     these
set -euo pipefail
out=${ALLUVIUM_CACHE:-$HOME/.cache/alluvium}/postgres
case $(uname -m) in
  x86_64) machine=amd64 ;;
  aarch64) machine=arm64v8 ;;
  *) echo "fetch-postgres: no servers for $(uname -m)" >&2; exit 1 ;;
esac
mkdir -p "$out"
exec 9>"$out/fetch.lock"
flock 9
if [ $# -eq 0 ]; then
  set -- 14.24.0 16.15.0 17.11.0 18.6.0
  # Debian 12 has it, with which `make test` runs.
  [ -d /usr/lib/postgresql/15/bin ] || set -- "$@" 15.19.0
fi
for version in "$@"; do
  folder=$out/${version%%.*}
  # The stamp is written last: it says that the folder is whole, and which version lies in it.
  if [ "$(cat "$folder/fetched" 2>/dev/null)" != "$version" ]; then
    name=embedded-postgres-binaries-linux-$machine
    mvn --batch-mode --no-transfer-progress --quiet org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
      -Dartifact="io.zonky.test.postgres:$name:$version:jar" -DoutputDirectory="$out" >&2
    rm -rf "$folder"
    mkdir "$folder"
    unzip -p "$out/$name-$version.jar" '*.txz' | tar -xJ -C "$folder"
    rm "$out/$name-$version.jar"
    echo "$version" >"$folder/fetched"
  fi
  echo "$folder/bin"
done
