#!/usr/bin/env bash
# Fetches the Apache Kafka broker of the tests (scripts/pom.xml: 55 MB from Maven Central) into $ALLUVIUM_CACHE/kafka/libs.
# Does nothing when it is there; several may run at once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${ALLUVIUM_CACHE:-$HOME/.cache/alluvium}/kafka
mkdir -p "$out"
exec 9>"$out/fetch.lock"
flock 9
# The stamp is the wanted list itself: another version in pom.xml fetches anew.
if ! cmp -s "$here/pom.xml" "$out/fetched.xml"; then
  rm -rf "$out/libs"
  mvn --batch-mode --no-transfer-progress --quiet --file "$here/pom.xml" -Dout="$out" package
  cp "$here/pom.xml" "$out/fetched.xml"
fi
ls "$out"/libs/kafka_2.13-*.jar
