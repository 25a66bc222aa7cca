#!/bin/sh
# Runs the test program ($1) and fails if fewer than $2 tests ran: Criterion exits 0 when nothing did.
set -u
program=$1
minimum=$2
shift 2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$program" --ascii "$@" >"$log" 2>&1
status=$?
grep -v '^\[SKIP\]' "$log"
skipped=$(grep -c '^\[SKIP\]' "$log")
[ "$skipped" -gt 0 ] && { echo "skipped: $skipped"; grep '^\[SKIP\]' "$log" | sort | uniq; }
tested=$(sed -n 's/.*Synthesis: Tested: \([0-9]*\).*/\1/p' "$log" | tail -1)
if [ "$status" -eq 0 ] && [ "${tested:-0}" -lt "$minimum" ]; then
    echo "tests: only ${tested:-0} ran, expected at least $minimum" >&2
    exit 1
fi
exit "$status"
