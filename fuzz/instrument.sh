#!/bin/sh
# What cargo calls in place of rustc for the packages of this workspace (RUSTC_WORKSPACE_WRAPPER): the same, with the counters by which
# libFuzzer sees where an input leads. Dependencies are not counted, and so need not be built again.
exec "$@" -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
  -C llvm-args=-sanitizer-coverage-pc-table -C llvm-args=-sanitizer-coverage-trace-compares -C link-dead-code
