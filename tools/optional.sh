#!/bin/sh
# Says which optional parts this machine has, and what is left out without them.
found() { command -v "$1" >/dev/null 2>&1; }
if ! found nvcc; then
    echo "left out: CUDA (no nvcc); phase 6 runs its kernels in the emulator, everything else on the CPU"
elif ! ls /dev/nvidia[0-9]* >/dev/null 2>&1; then
    echo "nvcc: found, kernels compiled for sm_80, 86, 89 and 90a; no GPU here: phase 6 runs them in the emulator"
else
    echo "nvcc: found, and a GPU: ./phase6 checks and times the kernels"
fi
found mpicc && echo "mpicc: found; used from phase 16 on" || echo "left out: MPI (no mpicc), needed by phase 16 only"
