"""Threads take turns: one at a time runs the methods of a Comm's vectors and matrices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


def exclusive(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Decorate a method of an object with a `comm`: other threads wait while it runs.

    The stream and the messages belong to the Comm, and the buffers between the stages of products to a matrix, not to a
    thread. A thread that has its turn may call other such methods. The method runs on the backend's device, with the
    Comm's number of threads.
    """

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        comm: Any = self.comm  # type: ignore[attr-defined]
        with comm.lock, comm.backend.calling_thread:
            return method(self, *args, **kwargs)

    return call


def collective(phase: str) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Return a decorator for collective methods: threads take turns, and all ranks raise the error of any of them.

    Parameters
    ----------
    phase : str
        The work of the method, for errors.
    """

    def decorate(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @exclusive
        @functools.wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            comm: Any = self.comm  # type: ignore[attr-defined]
            with comm.agreement(phase):
                return method(self, *args, **kwargs)

        return call

    return decorate
