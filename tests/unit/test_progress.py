"""The progress bar: where it appears, and error outputs on which it cannot."""

from __future__ import annotations

import io
import sys
import threading
import time
from typing import Any

import pytest

from numba_fftmatvec import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        super().isatty()  # raises a ValueError after close()
        return True


class WithoutIsatty:
    def write(self, text: str) -> int:
        raise AssertionError(text)

    def flush(self) -> None:
        raise AssertionError("flushed")


def closed() -> io.StringIO:
    stream = Terminal()
    stream.close()
    return stream


def rows(*, enabled: bool = True) -> list[int]:
    return list(progress.show_progress(range(3), "reading rows", enabled=enabled))


@pytest.mark.parametrize("stream", [None, closed(), WithoutIsatty(), io.StringIO()], ids=lambda s: type(s).__name__)
def test_no_bar_without_an_open_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stream: Any
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setattr(sys, "stderr", stream)
    assert rows() == [0, 1, 2]
    assert capsys.readouterr().out == ""
    assert not isinstance(stream, io.StringIO) or stream.closed or stream.getvalue() == ""


def test_the_bar_is_on_the_error_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert rows() == [0, 1, 2]
    assert "reading rows" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_no_bar_on_other_ranks_and_in_short_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert rows() == [0, 1, 2]
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    assert rows(enabled=False) == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_a_bar_without_a_thread_is_drawn_by_some_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    threads = threading.active_count()
    with progress.show_steps(1000, enabled=True, refresh=False) as show:
        for done in range(1000):
            show(done, f"step {done} of many")
            assert threading.active_count() <= threads
        assert terminal.getvalue() == ""  # all of them came within a fraction of a second
        show(1000, "the last step")
    assert "the last step" in terminal.getvalue() and "100%" in terminal.getvalue()


@pytest.mark.parametrize(("seconds", "shown"), [(-1.0, True), (60.0, False)])
def test_waiting_is_shown_after_a_while(monkeypatch: pytest.MonkeyPatch, seconds: float, shown: bool) -> None:
    monkeypatch.setattr(progress, "PATIENCE", seconds)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    threads = threading.active_count()

    def wait() -> None:
        with progress.show_waiting("Compiling [kernels]", enabled=True):
            deadline = time.monotonic() + 10
            while shown and "Compiling [kernels]" not in terminal.getvalue() and time.monotonic() < deadline:
                time.sleep(0.01)
            raise ValueError("of the body")

    with pytest.raises(ValueError, match="of the body"):
        wait()
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ("Compiling [kernels]" in terminal.getvalue()) == shown
    assert threading.active_count() <= threads
    written = terminal.getvalue()
    with progress.show_waiting("Compiling", enabled=False):
        pass
    assert terminal.getvalue() == written


def test_a_bar_takes_the_place_of_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.show_waiting("Setting up", enabled=True):
        deadline = time.monotonic() + 10
        while "Setting up" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert rows() == [0, 1, 2]
        assert "reading rows" in terminal.getvalue()
        with progress.show_steps(3, enabled=True) as show:
            show(1, "solving")
            with progress.show_waiting("Not shown", enabled=True):
                time.sleep(0.05)
    assert "Not shown" not in terminal.getvalue()
    assert progress._bars == progress._waiting == []


def test_descriptions_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.show_progress(range(2), "reading [ms] of a[/b]", enabled=True)) == [0, 1]
    assert "reading [ms] of a[/b]" in terminal.getvalue()
