#!/bin/sh
# Runs one fuzz target ($1) for $2 seconds, from the inputs kept in tests/fuzz/corpus/<name>/.
set -eu
name=$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work" "$work.log"' EXIT
echo "$name: $2 s"
"$1" -max_total_time="$2" -max_len=65536 -rss_limit_mb=2048 -timeout=10 -verbosity=0 \
    -print_final_stats=1 -artifact_prefix=build/fuzz/ "$work" \
    $(ls -d "tests/fuzz/corpus/$name" 2>/dev/null) >"$work.log" 2>&1 && status=0 || status=$?
grep -E 'number_of_executed|ERROR|SUMMARY' "$work.log" || cat "$work.log"
exit "$status"
