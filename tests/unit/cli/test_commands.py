"""The table of the commands, the command line that selects one, and the policy of errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import cli
from numba_fftmatvec.cli.commands import COMMANDS, Command
from numba_fftmatvec.cli.parser import Parser


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_commands_with_a_line_each(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command in COMMANDS.values():
        assert [line.split(None, 1)[1] for line in lines if line.split()[:1] == [command.name]] == [command.help]
    assert all(len(line) <= 120 for line in lines)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fftmatvec {fm.__version__}\n"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "-h"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"usage: fftmatvec {name} [-h]") and output.err == ""
    assert COMMANDS[name].load().build_parser().prog == f"fftmatvec {name}"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_refuses_an_unknown_flag(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([name, "--frobnicate"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and "expected" in output.err and "found" in output.err
    assert f"'fftmatvec {name} -h' lists the arguments" in output.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "advice"), [("chek", "perhaps check is meant"), ("frobnicate", "'fftmatvec -h' lists the commands")]
)
def test_an_unknown_command(name: str, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert "expected a command (run, " in output.err and f"found {name!r}; {advice}" in output.err


def test_flags_without_a_command_are_those_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--backend", "cpu", "-N", "2", "-raw", "-v", "-Nt", "3"]
    outputs = []
    for command in ([], ["run"]):
        assert cli.main([*command, *line]) == 0
        outputs.append(capsys.readouterr().out.partition("F,0")[0])
    assert outputs[0] == outputs[1] != ""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], Command]:
    """Return a function that makes a command of a function."""

    def install(function: Callable[[], int], *, collective: bool = False) -> None:
        class Module:
            build_parser = staticmethod(lambda: Parser("own", "A command."))
            main = staticmethod(lambda arguments: function())

        made = Command("own", "a command", collective)
        monkeypatch.setattr(Command, "load", lambda self: Module)
        monkeypatch.setitem(COMMANDS, "own", made)

    return install


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (fm.ShapeError("expected 1,\nfound 2"), 2, "fftmatvec: error: expected 1, found 2\n"),
        (fm.VerificationError("expected 1, found 2"), 1, "fftmatvec: error: expected 1, found 2\n"),
        (KeyboardInterrupt(), 130, "fftmatvec: error: interrupted\n"),
    ],
)
def test_errors_become_one_line_and_a_status(
    command: Callable[..., None],
    error: BaseException,
    status: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        raise error

    command(fail)
    assert cli.main(["own"]) == status
    assert capsys.readouterr() == ("", line)


def test_the_first_rank_alone_runs_what_is_not_collective(
    command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(lambda: 7)
    assert cli.main(["own"]) == 7
    monkeypatch.setenv("PMI_RANK", "1")
    assert cli.main(["own"]) == 0
    command(lambda: 7, collective=True)
    assert cli.main(["own"]) == 7


def test_a_reader_that_ends_early(command: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as lost:
        monkeypatch.setattr("sys.stdout", lost)

        def talk() -> int:
            print("a line", flush=True)
            return 0

        command(talk)
        assert cli.main(["own"]) == 1


def test_no_mpi_is_one_line(tmp_path: Path) -> None:
    """Only a process of its own can start without the MPI library that this one has loaded."""
    environment = os.environ | {"PYTHONPATH": str(Path(fm.__file__).parents[1])}
    script = (
        "import sys; from numba_fftmatvec import cli\n"
        "class NoMpi:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mpi4py.MPI':\n"
        "            raise RuntimeError('cannot load MPI library\\nlibmpi.so')\n"
        "sys.meta_path.insert(0, NoMpi())\n"
        "sys.exit(cli.main(['run', '--backend', 'cpu', '-s', 'out']))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "fftmatvec: error: MPI: expected a library that mpi4py can load, found: cannot load MPI library libmpi.so; "
        "pip install 'numba-fftmatvec[mpich]', or load the site's MPI\n"
    )
    assert list(tmp_path.iterdir()) == []
