"""The choice of a backend. A backend's library is imported here, when it is chosen, and nowhere above."""

from __future__ import annotations

import importlib
import os
from typing import Any

from ..errors import ArgumentError, BackendError
from .base import Backend
from .cores import share_of_cores

ENVIRONMENT_VARIABLE = "NUMBA_FFTMATVEC_BACKEND"
NAMES = ("auto", "cpu", "cuda")


def requested_backend(name: str) -> str:
    """Return `name`, or for ``"auto"`` the value of NUMBA_FFTMATVEC_BACKEND if it is set."""
    if name == "auto":
        name = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    if name not in NAMES:
        raise ArgumentError(f"backend: expected one of {', '.join(NAMES)}, found {name!r}")
    return name


def cuda_devices() -> tuple[int, str]:
    """Return the number of CUDA devices that work here, and the reason where it is 0."""
    try:
        cuda = importlib.import_module(f"{__package__}.cuda")
    except ImportError as error:
        return 0, f"{type(error).__name__}: {error}"
    return cuda.device_count()  # type: ignore[no-any-return]


def select_backend(name: str, node_rank: int, node_size: int, stream: Any = None) -> Backend:
    """Return the backend for a rank.

    Parameters
    ----------
    name : {"cpu", "cuda"}
        The backend.
    node_rank, node_size : int
        This rank's index among the ranks of its node, and their number. The rank takes GPU ``node_rank % devices``, or
        its share of the cores.
    stream : cupy.cuda.Stream, optional
        The stream that the work is queued on; by default a new one.

    Raises
    ------
    BackendError
        The name is ``"cuda"`` and no CUDA device works.
    """
    if name == "cpu":
        return importlib.import_module(f"{__package__}.cpu").CpuBackend(node_size)  # type: ignore[no-any-return]
    devices, reason = cuda_devices()
    if not devices:
        raise BackendError(f"backend 'cuda': expected a working CUDA device, found none ({reason})")
    cuda = importlib.import_module(f"{__package__}.cuda")
    device = node_rank % devices
    sharing = len(range(device, node_size, devices))
    return cuda.CudaBackend(  # type: ignore[no-any-return]
        device, stream, sharing=sharing, threads=share_of_cores(node_size)
    )
