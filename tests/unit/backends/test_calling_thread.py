"""The number of numba's threads during a call, and the caller's number after calls that are interrupted anywhere."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numba
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.backends.cpu import backend as module
from numba_fftmatvec.backends.cpu.backend import CallingThread
from numba_fftmatvec.kernels.threads import pool_size

CALLER = 7


class Interrupt(BaseException):
    """Stands for a KeyboardInterrupt."""


@pytest.fixture
def number(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace numba's number of the calling thread by that of a list."""
    present = [CALLER]

    def set_number(value: int) -> None:
        present[0] = value

    monkeypatch.setattr(module, "accessors", lambda: (lambda: present[0], set_number))
    return present


def interrupted(run: Callable[[], object], codes: set[CodeType], moment: int, event: str) -> bool:
    """Run a function that is interrupted at the n-th line or instruction of some code; return whether it was."""
    left = moment
    raised = False

    def trace(frame: FrameType, kind: str, argument: object) -> Any:
        nonlocal left, raised
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = event == "opcode"
        if kind == event and not raised:
            left -= 1
            if left < 0:
                raised = True
                raise Interrupt
        return trace

    sys.settrace(trace)
    try:
        run()
    except Interrupt:
        pass
    finally:
        sys.settrace(None)
    return raised


def code_of(*names: str) -> set[CodeType]:
    return {getattr(CallingThread, name).__code__ for name in names}


def nested(*threads: CallingThread) -> None:
    """Enter contexts one inside another, each in a frame of its own, as calls of Comms do."""
    if threads:
        with threads[0]:
            nested(*threads[1:])


@pytest.mark.parametrize("event", ["line", "opcode"])
@pytest.mark.parametrize("numbers", [[2], [CALLER], [2, 2], [2, 3], [2, CALLER, 3]])
def test_an_interrupt_anywhere_leaves_the_number_of_the_caller(
    event: str, numbers: list[int], number: list[int]
) -> None:
    """At the latest the next call restores it, whichever Comm makes it."""
    threads, other = [CallingThread(each) for each in numbers], CallingThread(5)
    codes = code_of("__enter__", "__exit__")
    moment = 0
    while interrupted(lambda: nested(*threads), codes, moment, event):
        nested(other)
        assert number == [CALLER], f"interrupted at moment {moment}"
        assert module._entered.calls == []
        moment += 1
    assert moment >= 4 * len(numbers)


@pytest.mark.parametrize("event", ["line", "opcode"])
def test_a_second_interrupt_delays_the_restoration(event: str, number: list[int]) -> None:
    """The first one comes at the first line of `__exit__`, the second one anywhere in the next call."""
    one, other = CallingThread(2), CallingThread(5)
    moment = 0
    again = True
    while again:
        assert interrupted(lambda: nested(one), code_of("__exit__"), 0, event)
        assert number == [2]
        codes = code_of("__enter__", "__exit__", "_end_interrupted")
        again = interrupted(lambda: nested(other), codes, moment, event)
        nested(one)
        assert number == [CALLER] and module._entered.calls == []
        moment += 1
    assert moment > 8


def test_a_handler_within_a_call_continues_with_its_number(number: list[int]) -> None:
    """A callback catches the interrupt of an inner call; the outer call has its number from its next call on."""
    outer, inner = CallingThread(2), CallingThread(3)
    with outer:
        assert interrupted(lambda: nested(inner), code_of("__exit__"), 0, "line")
        nested(inner)
        assert number == [2]
        assert interrupted(lambda: nested(inner), code_of("__exit__"), 0, "line")
    assert number == [CALLER] and module._entered.calls == []


def test_a_number_that_the_caller_sets_after_an_interrupt_stays(number: list[int]) -> None:
    one = CallingThread(2)
    assert interrupted(lambda: nested(one), code_of("__exit__"), 0, "line")
    number[0] = 4
    nested(one)
    assert number == [4]


@pytest.mark.skipif(pool_size() < 2, reason="compares one thread with two")
def test_products_restore_the_number_of_their_thread() -> None:
    usual = numba.get_num_threads()
    numba.set_num_threads(2)
    try:
        with fm.Comm(backend="cpu", threads=1) as comm:
            F = fm.Matrix(comm, 2, 2, 4, global_sizes=True)
            F.init_mat_ones()
            x, y = F.get_vec("input"), F.get_vec("output")
            x.init_vec_ones()
            for name in ("__enter__", "__exit__"):
                assert interrupted(lambda: F.matvec(x, y), code_of(name), 0, "line")
                with ThreadPoolExecutor(1) as pool:  # another thread restores its own number alone
                    pool.submit(F.matvec, x, y).result()
                F.matvec(x, y)
                assert numba.get_num_threads() == 2
    finally:
        numba.set_num_threads(usual)


def test_with_statements_are_in_frames_that_run() -> None:
    """A call whose frame does not run counts as interrupted: no generator and no ExitStack enters the context."""
    package, count = Path(fm.__file__).parent, 0
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        entered = [ast.unparse(item) for with_ in ast.walk(tree) if isinstance(with_, ast.With) for item in with_.items]
        entered = [text for text in entered if text.endswith(".calling_thread")]
        uses = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "calling_thread"]
        assert len(entered) == sum(isinstance(use.ctx, ast.Load) for use in uses), path
        count += len(entered)
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and any(isinstance(n, ast.Yield) for n in ast.walk(function)):
                assert "calling_thread" not in ast.unparse(function), f"{path}: {function.name}"
    assert count >= 10
