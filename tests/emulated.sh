#!/bin/sh
# Other CPUs, under emulators: the kernels' tests on 64-bit ARM ($1, if it was built) with and
# without its newer instructions, and phase1 ($2) on older x86 CPUs, which must write the text it
# writes here. What cannot run is skipped with one line.
set -u
# Set, the programs do not start themselves again: the emulator would start them on the real CPU.
export GOMP_SPINCOUNT=2000 OMP_NUM_THREADS=2
failed=0

arm() {
    cpu=$1 level=$2
    shift 2
    answer=$(qemu-aarch64 -cpu "$cpu" "$@" 2>&1)
    status=$?
    echo "$cpu: $(echo "$answer" | tail -1)"
    case $status:$answer in
    0:*"up to $level") ;;
    *) echo "test-arm: $cpu: failed, expected to pass at level $level" >&2 && failed=1 ;;
    esac
}

story() {
    "$@" --quiet --limit 64 --choices none --max-tokens 12 \
        --prompt "Victor was given eight figs at the post office." 2>/dev/null | sed -n 's/^> *//p'
}

x86() {
    cpu=$1 level=$2 want=$3 got=$(story qemu-x86_64 -cpu "$1" "$phase1")
    if ! qemu-x86_64 -cpu "$cpu" "$phase1" --help 2>/dev/null | grep -q "this CPU has $level"; then
        echo "test-arm: $cpu: phase1 does not report $level" >&2 && failed=1
    elif [ -z "$want" ] || [ "$got" != "$want" ]; then
        echo "test-arm: $cpu: phase1 wrote '$got', expected '$want'" >&2 && failed=1
    else
        echo "$cpu: phase1 at level $level writes the same: $got"
    fi
}

if ! command -v qemu-aarch64 >/dev/null; then
    echo "skipped: ARM: no qemu-aarch64 (Debian: qemu-user)"
elif [ ! -x "$1" ]; then
    echo "skipped: ARM: no aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu)"
else
    arm max i8mm "$1"
    arm neoverse-n1 dotprod "$1" isa matmul_weave matmul_i8 convert
    arm cortex-a72 neon "$1" isa matmul_weave matmul_i8 convert
fi
phase1=$2
if [ "$(uname -m)" != x86_64 ] || ! command -v qemu-x86_64 >/dev/null; then
    echo "skipped: older x86 CPUs: no qemu-x86_64 (Debian: qemu-user)"
else
    want=$(story "$phase1")
    x86 Nehalem scalar "$want"
    x86 Haswell avx2 "$want"
fi
exit $failed
