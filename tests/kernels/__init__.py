"""Tests of the kernel library: on the CPU, in the CUDA simulator, as PTX, and on a GPU."""
