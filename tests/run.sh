#!/bin/sh
# Runs the test program ($1) and fails if fewer than $2 tests ran or were skipped: Criterion exits 0
# when nothing did. Skipped tests and why are listed behind its summary, which leaves them out.
set -u
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000} # waiting threads sleep soon: see cli_wait_briefly
program=$1
minimum=$2
shift 2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$program" --verbose "$@" >"$log" 2>&1
status=$?
grep -avE '^\[(RUN |PASS|SKIP)|^\[====\] Running|^\[----\] Criterion v' "$log"
skipped=$(grep -ac '^\[SKIP\]' "$log")
if [ "$skipped" -gt 0 ]; then
    sed -n 's/^\[SKIP\] [^ ]* *//p' "$log" | sort | uniq -c | sed 's/^ *\([0-9]*\)/skipped: \1:/'
fi
tested=$(sed -n 's/.*Synthesis: Tested: \([0-9]*\).*/\1/p' "$log" | tail -1)
if [ "$status" -eq 0 ] && [ $((${tested:-0} + skipped)) -lt "$minimum" ]; then
    echo "tests: only ${tested:-0} ran and $skipped were skipped, expected $minimum" >&2
    exit 1
fi
exit "$status"
