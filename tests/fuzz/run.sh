#!/bin/sh
# Runs one fuzz target ($1) for $2 seconds, from the inputs kept in tests/fuzz/corpus/<name>/.
set -eu
name=$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "$name: $2 s"
"$1" -max_total_time="$2" -max_len=65536 -rss_limit_mb=2048 -timeout=10 -verbosity=0 \
    -print_final_stats=1 -artifact_prefix=build/fuzz/ "$work" \
    $(ls -d "tests/fuzz/corpus/$name" 2>/dev/null) 2>&1 | grep -E 'number_of_executed|ERROR|SUMMARY' || true
# libFuzzer's own status is lost in the pipe: a crash leaves its input behind.
! ls build/fuzz/crash-* build/fuzz/leak-* build/fuzz/timeout-* build/fuzz/oom-* >/dev/null 2>&1
