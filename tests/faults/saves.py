"""Saves that are killed, and readers beside a writer: a file or a directory has one version at any time.

``python -m faults.saves write FOLDER`` saves a vector and a matrix until it is killed, each time with the next value.
``python -m faults.saves read FOLDER READS ROWS COLUMNS`` reads them on a process grid, and prints counts of outcomes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import numba_fftmatvec as fm
from numba_fftmatvec.io import read_block_row, read_meta, read_vector
from numba_fftmatvec.layout import Space, VectorLayout
from support.harness import run_ranks

ND, NM, NT = 4, 6, 5
LAYOUT = VectorLayout(Space.COL, NM, NT, 1, range(NM))
TESTS = Path(__file__).resolve().parents[1]


def write(folder: Path, versions: range) -> None:
    """Save a vector and a matrix of constant values, 1, 2, 3, ...; print a line after the first of them."""
    with fm.Comm(backend="cpu") as comm:
        vector = fm.Vector(comm, NM, NT, "col", global_sizes=True)
        for version in versions:
            vector.scatter(np.full((NM, NT), float(version)))
            vector.save(folder / "x.h5")
            fm.Matrix.from_array(comm, np.full((ND, NM, NT), float(version))).save(folder / "matrix")
            if version == versions.start:
                print("begun", flush=True)


def start_writer(folder: Path, versions: range) -> subprocess.Popen[str]:
    """Return a process that saves versions, when the first one is saved."""
    arguments = ["write", str(folder), str(versions.start), str(versions.stop)]
    process = subprocess.Popen(
        [sys.executable, "-m", "faults.saves", *arguments],
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "NUMBA_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if process.stdout.readline() != "begun\n":
        raise RuntimeError(f"the writer ended with status {process.wait()}")
    return process


# Kills


def forked(work: Callable[[int], None]) -> tuple[int, int]:
    """Start a copy of this process, which has not started MPI, that works; return its number and a pipe's end."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(writable)
        finally:
            os._exit(1)
    os.close(writable)
    return child, readable


def version_of(values: np.ndarray) -> int | None:
    """Return the one version of values that the spectrum's rounding may have changed; None for a mixture."""
    version = round(float(values.flat[0]))
    return version if np.abs(values - version).max() < 1e-9 * version else None


def read_vector_version(folder: Path) -> int | None:
    out = np.full((NM, NT), np.nan)
    read_vector(folder / "x.h5", LAYOUT, out)
    return version_of(out)


def read_matrix_version(folder: Path) -> int | None:
    meta = read_meta(folder / "matrix")
    out = np.full((meta.Nd, meta.Nm, meta.Nt), np.nan)
    for row in range(meta.Nd):
        read_block_row(folder / "matrix", meta, row, range(meta.Nm), out[row])
    return version_of(out)


READ = {"Vector.save": read_vector_version, "Matrix.save": read_matrix_version}


def save_for_ever(call: str, folder: Path, first: int, pipe: int) -> None:
    """Save one version after another, and write a byte to a pipe before each of them."""
    with fm.Comm(backend="cpu") as comm:
        vector = fm.Vector(comm, NM, NT, "col", global_sizes=True)
        matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
        version = first
        while True:
            if call == "Vector.save":
                vector.scatter(np.full((NM, NT), float(version)))
            else:
                matrix.init_mat_from_array(np.full((ND, NM, NT), float(version)))
            os.write(pipe, version.to_bytes(8, "little"))
            if call == "Vector.save":
                vector.save(folder / "x.h5")
            else:
                matrix.save(folder / "matrix")
            time.sleep(0.002)  # so that some kills come after a save
            version += 1


def kill_saves(call: str, kills: int, seed: int = 1) -> dict[str, int]:
    """Kill processes during saves; count the versions that remain, and the files that the last save did not remove.

    This process must not have started MPI. Each process is killed at a random time of one of its first saves.
    """
    counts: Counter[str] = Counter(dict.fromkeys(("old", "new", "neither"), 0))
    chance, first = random.Random(seed), 1
    present: int | None = None
    with tempfile.TemporaryDirectory(prefix="kills") as name:
        folder = Path(name)
        for _ in range(kills + 1):
            last = kill_one(call, folder, first, chance)
            old = present if last == first else last - 1
            present = present_version(call, folder)
            if old is not None:  # the first process has no old version before its first save ends
                counts["new" if present == last else "old" if present == old else "neither"] += 1
            first = last + 1
        return {**counts, "left over": left_over(call, folder)}


def kill_one(call: str, folder: Path, first: int, chance: random.Random) -> int:
    """Start a process that saves versions from the first one on, kill it, and return the last one that it began."""
    child, pipe = forked(lambda end: save_for_ever(call, folder, first, end))
    with os.fdopen(pipe, "rb") as begun:
        for _ in range(1 + chance.randrange(3) if first > 1 else 4):
            last = int.from_bytes(begun.read(8), "little")
            if not last:
                raise RuntimeError("the writer failed")
        time.sleep(chance.random() ** 2 * 0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        rest = begun.read()
    return int.from_bytes(rest[-8:], "little") if rest else last


def present_version(call: str, folder: Path) -> int | None:
    """Return the version that a file or directory has; None if it has none, or several."""
    try:
        return READ[call](folder)
    except fm.FFTMatvecError:
        return None


def left_over(call: str, folder: Path) -> int:
    """Return the number of files of unfinished saves after one more save, by a process that ends."""

    def work(_: int) -> None:
        write(folder, range(1, 2))
        os._exit(0)

    child, pipe = forked(work)
    os.close(pipe)
    os.waitpid(child, 0)
    expected = {"x.h5", "meta_adj"}
    if call == "Matrix.save":
        prefix = read_meta(folder / "matrix").prefix
        expected |= {f"{prefix}manifest", *(f"{prefix}{row:06d}.h5" for row in range(ND))}
    files = {path.name for path in folder.rglob("*") if path.is_file() and call == "Matrix.save"}
    files |= {path.name for path in folder.iterdir() if path.is_file()}
    return len(files - expected)


# Readers beside a writer


def read_beside(payload: tuple[str, int, tuple[int, int]]) -> dict[str, int]:
    """Read the vector and the matrix many times on a process grid; count the versions and the named errors."""
    folder, reads, grid = payload
    counts: Counter[str] = Counter(dict.fromkeys(("one version", "mixtures", "refused"), 0))
    with fm.Comm(None, *grid, backend="cpu") as comm:
        x = fm.Vector(comm, NM, NT, "col", global_sizes=True)
        ones = fm.Vector(comm, NM, NT, "col", global_sizes=True)
        ones.init_vec_ones()
        steps = NM * np.arange(1.0, NT + 1)
        for index in range(reads):
            try:
                if index % 2:
                    x.init_vec_from_file(Path(folder, "x.h5"))
                    found = x.gather()
                else:
                    found = (fm.Matrix(comm, Path(folder, "matrix")) @ ones).gather() / steps
            except fm.FileError:
                counts["refused"] += 1
                continue
            counts["mixtures" if version_of(found) is None else "one version"] += 1
    return dict(counts)


def read_beside_a_writer(reads: int, grid: tuple[int, int], timeout: float = 1200) -> dict[str, Any]:
    """Read on a process grid while another process saves; return the counts of one rank, the same on all."""
    with tempfile.TemporaryDirectory(prefix="readers") as name:
        writer = start_writer(Path(name), range(1, 10**9))
        try:
            payload = (name, reads, grid)
            found = run_ranks(grid[0] * grid[1], "faults.saves:read_beside", payload, timeout=timeout)
            if writer.poll() is not None:
                raise RuntimeError(f"the writer ended with status {writer.returncode}")
        finally:
            writer.kill()
            writer.wait()
            with suppress(OSError):
                writer.stdout.close()  # type: ignore[union-attr]
        if any(counts != found[0] for counts in found):
            raise RuntimeError(f"expected the same counts on all ranks, found {found}")
        return dict(found[0])


def main(arguments: list[str]) -> None:
    if arguments[0] == "write":
        write(Path(arguments[1]), range(int(arguments[2]), int(arguments[3])))
    else:
        print(json.dumps(kill_saves(arguments[1], int(arguments[2]), int(arguments[3]))))


if __name__ == "__main__":
    main(sys.argv[1:])
