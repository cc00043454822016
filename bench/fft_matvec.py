"""The benchmark of F and F* under the original's name; ``-h`` lists its flags, and `fftmatvec` is the same program.

Run ``mpiexec -n 4 python -m mpi4py bench/fft_matvec.py -pr 2 -pc 2 -t``, or pass ``-n 4`` instead of using mpiexec.
"""

import sys

from numba_fftmatvec.cli import main

if __name__ == "__main__":
    sys.exit(main())
