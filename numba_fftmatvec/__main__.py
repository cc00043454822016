"""``python -m numba_fftmatvec``: the runner."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
