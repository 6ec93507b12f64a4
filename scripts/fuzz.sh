#!/usr/bin/env bash
# Runs the fuzz targets with libFuzzer, one after the other, and stops at the first finding.
#
#   scripts/fuzz.sh              all of them, a minute each
#   scripts/fuzz.sh json log     these
#   ALLUVIUM_FUZZ_SECONDS=3600   for longer
#
# What it finds lies in fuzz/findings; what it learns lies in $ALLUVIUM_CACHE/fuzz and is where the next run begins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache="${ALLUVIUM_CACHE:-$HOME/.cache/alluvium}/fuzz"
seconds="${ALLUVIUM_FUZZ_SECONDS:-60}"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(config copy debezium json log pgoutput schema)

bins=()
for target in "${targets[@]}"; do bins+=(--bin "fuzz-$target"); done
export RUSTC_WORKSPACE_WRAPPER="$PWD/fuzz/instrument.sh"
cargo build --release --locked --package alluvium-fuzz "${bins[@]}"
built=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release

for target in "${targets[@]}"; do
  mkdir -p "$cache/$target" fuzz/findings
  echo "== $target, for $seconds s"
  "$built/fuzz-$target" "$cache/$target" "fuzz/seeds/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len=16384 -artifact_prefix="fuzz/findings/$target-" -print_final_stats=1 2>&1 |
    grep --line-buffered -E "DONE|panicked|ERROR|SUMMARY|Test unit written|stat::number_of_executed_units|assertion|left:|right:"
done
