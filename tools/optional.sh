#!/bin/sh
# Says which optional parts this machine has, and what is left out without them.
found() { command -v "$1" >/dev/null 2>&1; }
if found nvcc; then
    echo "nvcc: found; CUDA kernels come with phase 6"
else
    echo "left out: CUDA (no nvcc); everything runs on the CPU"
fi
found mpicc && echo "mpicc: found; used from phase 16 on" || echo "left out: MPI (no mpicc), needed by phase 16 only"
