"""The choice of a backend. A backend's library is imported here, when it is chosen, and nowhere above."""

from __future__ import annotations

import importlib
import os
from typing import Any

from ..errors import ArgumentError, BackendError
from .base import Backend
from .cores import Place, default_threads

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


def select_backend(name: str, place: Place, stream: Any = None, threads: int | None = None) -> Backend:
    """Return the backend for a rank.

    Parameters
    ----------
    name : {"cpu", "cuda"}
        The backend.
    place : Place
        This rank's place in its node. The rank takes GPU ``place.rank % devices``, or its share of the cores.
    stream : cupy.cuda.Stream, optional
        The stream that the work is queued on; by default a new one.
    threads : int, optional
        The number of threads; by default the rank's share of the cores, within the limits that the caller set.

    Raises
    ------
    BackendError
        The name is ``"cuda"`` and no CUDA device works.
    """
    if name == "cpu":
        return importlib.import_module(f"{__package__}.cpu").CpuBackend(place, threads)  # type: ignore[no-any-return]
    devices, reason = cuda_devices()
    if not devices:
        raise BackendError(f"backend 'cuda': expected a working CUDA device, found none ({reason})")
    cuda = importlib.import_module(f"{__package__}.cuda")
    device = place.rank % devices
    sharing = len(range(device, place.size, devices))
    threads = threads or default_threads(place, name).number
    return cuda.CudaBackend(device, stream, sharing=sharing, threads=threads)  # type: ignore[no-any-return]
