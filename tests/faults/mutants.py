"""Damaged files: seeded mutations of vectors and matrix directories, each read right or refused by a named error.

``python -m faults.mutants FOLDER PROGRESS SEED FIRST STOP`` reads the mutants of a range, and prints their counts. The
number of the present one is in the file PROGRESS, for a caller that counts crashes and hangs.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from numba_fftmatvec.errors import FFTMatvecError
from numba_fftmatvec.io import (
    MatrixMeta,
    Replacement,
    block_row_writer,
    read_block_row,
    read_meta,
    read_vector,
    vector_writer,
    write_manifest,
    write_meta,
)
from numba_fftmatvec.layout import Space, VectorLayout

SECONDS = 20  # after which a mutant counts as a hang
TESTS = Path(__file__).resolve().parents[1]
Array = NDArray[np.float64]
COL = VectorLayout(Space.COL, 6, 5, 1, range(6))
ROW = VectorLayout(Space.ROW, 6, 5, 3, range(6))
LONG = VectorLayout(Space.COL, 40, 700, 1, range(40))  # four spans of digests
META = MatrixMeta(2, 3, 4, checksum=77)

# Vectors without digests: the storage, and the versions of HDF5 that can read it.
FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "contiguous": ({}, "earliest"),
    "chunks": ({"chunks": (8,)}, "earliest"),
    "gzip": ({"chunks": (8,), "compression": "gzip", "shuffle": True}, "earliest"),
    "lzf": ({"chunks": (30,), "compression": "lzf", "fletcher32": True}, "earliest"),
    "latest": ({"chunks": (8,), "maxshape": (None,), "compression": "gzip"}, "latest"),
}


@dataclass(frozen=True)
class Case:
    """A vector or a matrix directory that is mutated.

    Parameters
    ----------
    name : str
        Name of the file or directory.
    digests : bool
        Whether it has digests, so that no wrong value may be read.
    values : array
        The values.
    read : callable
        ``read(path)`` returns the values that the library reads.
    """

    name: str
    digests: bool
    values: Array
    read: Callable[[Path], Array]


def cases(folder: Path) -> list[Case]:
    """Write the files into a folder, and return their cases."""
    random_values = np.random.default_rng(7)
    made = []
    for layout, name in ((COL, "own.h5"), (ROW, "several.h5"), (LONG, "long.h5")):
        values = random_values.standard_normal(layout.shape)
        with vector_writer(folder / name, layout, checksum=5) as writer:
            writer.write(range(layout.num_blocks), values)
        made.append(Case(name, True, values, vector_reader(layout)))
    for name, (options, libver) in FOREIGN.items():
        values = random_values.standard_normal(COL.shape)
        with h5py.File(folder / f"{name}.h5", "w", libver=libver) as file:
            dataset = file.create_dataset("vec", data=values.reshape(-1), **options)
            dataset.attrs.update({"reindex": 1, "n_param": 6, "param_steps": 5, "checksum": 5})
        made.append(Case(f"{name}.h5", False, values, vector_reader(COL)))
    blocks = random_values.standard_normal((META.Nd, META.Nm, META.Nt))
    save_matrix(folder / "matrix", blocks)
    return [*made, Case("matrix", True, blocks, read_matrix), Case("matrix", True, blocks, read_matrix)]


def save_matrix(directory: Path, blocks: Array) -> None:
    """Write a matrix directory as `Matrix.save` does."""
    new, digests = Replacement.begin(directory, META), []
    for row in range(META.Nd):
        with block_row_writer(directory, new.meta, row) as writer:
            writer.write(range(META.Nm), blocks[row])
        digests.append(writer.digest)
    write_manifest(directory, new.meta, digests)
    write_meta(directory, new.meta)


def vector_reader(layout: VectorLayout) -> Callable[[Path], Array]:
    def read(path: Path) -> Array:
        out = np.full(layout.shape, np.nan)
        read_vector(path, layout, out, checksum=5)
        return out

    return read


def read_matrix(directory: Path) -> Array:
    """Return the values of a matrix directory, whose sizes a caller must know before it compares values."""
    meta = read_meta(directory)
    out = np.full((min(meta.Nd, 9), min(meta.Nm, 99), min(meta.Nt, 99)), np.nan)
    for row in range(len(out)):
        read_block_row(directory, meta, row, range(out.shape[1]), out[row])
    return out


# Mutations of a file's bytes


def flip(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        content[place(content, chance)] ^= 1 << chance.randrange(8)


def overwrite(content: bytearray, chance: random.Random) -> None:
    start, length = place(content, chance), chance.choice((1, 2, 4, 8, 64))
    fill = chance.choice((b"\0", b"\xff", bytes([chance.randrange(256)])))
    content[start : start + length] = fill * len(content[start : start + length])


def number(content: bytearray, chance: random.Random) -> None:
    """Write a little-endian number that is a likely size or address."""
    start, length = place(content, chance), chance.choice((2, 4, 8))
    found = chance.choice((0, 1, 2, 30, 240, len(content), len(content) - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1))
    content[start : start + length] = (found % 2 ** (8 * length)).to_bytes(length, "little")[: len(content) - start]


def truncate(content: bytearray, chance: random.Random) -> None:
    del content[place(content, chance) :]


def remove(content: bytearray, chance: random.Random) -> None:
    start = place(content, chance)
    del content[start : start + chance.choice((1, 2, 8, 100))]


def insert(content: bytearray, chance: random.Random) -> None:
    start = place(content, chance)
    content[start:start] = chance.randbytes(chance.choice((1, 8, 100)))


def move(content: bytearray, chance: random.Random) -> None:
    """Copy a part of the file over another one."""
    source, target, length = place(content, chance), place(content, chance), chance.choice((4, 8, 32, 240))
    part = content[source : source + length]
    content[target : target + len(part)] = part


MUTATIONS = (flip, flip, flip, flip, overwrite, number, number, truncate, remove, insert, move)


def place(content: bytearray, chance: random.Random) -> int:
    """Return the index of a byte: half of them are in the first 3 KB, where HDF5 has its metadata."""
    return chance.randrange(max(1, min(len(content), chance.choice((3000, len(content))))))


def mutate(path: Path, chance: random.Random) -> str:
    """Mutate a file, or a file of a directory, and return the mutation's name."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        if chance.random() < 0.1:
            first, second = chance.sample(files, 2)
            shutil.copy(first, second)
            return "copied"
        path = chance.choice(files)
    content = bytearray(path.read_bytes())
    mutation = chance.choice(MUTATIONS)
    mutation(content, chance)
    path.write_bytes(content)
    return mutation.__name__


def outcome(case: Case, path: Path) -> tuple[str, str]:
    """Return "right", "refused", "wrong" or "unnamed", and details of the last two."""
    try:
        found = case.read(path)
    except FFTMatvecError:
        return "refused", ""
    except Exception as error:
        return "unnamed", f"{type(error).__name__}: {error}"
    if found.shape == case.values.shape and found.tobytes() == case.values.tobytes():
        return "right", ""
    return ("wrong" if case.digests else "wrong without digests"), f"shape {found.shape}"


def read_mutants(folder: Path, progress: Path, seed: int, numbers: range) -> dict[str, Any]:
    """Read some mutants; return the counts of outcomes, and the failures."""
    counts: Counter[str] = Counter()
    failures = []
    originals = cases(folder)
    with progress.open("wb", buffering=0) as present:
        for index in numbers:
            present.seek(0)
            present.write(f"{index:<12}".encode())
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            chance = random.Random(f"{seed} {index}")
            case = originals[index % len(originals)]
            path = folder / f"mutant {case.name}"
            (shutil.copytree if (folder / case.name).is_dir() else shutil.copy)(folder / case.name, path)
            mutation = mutate(path, chance)
            found, details = outcome(case, path)
            counts[found] += 1
            if found in ("wrong", "unnamed"):
                failures.append(f"mutant {index}, {case.name}, {mutation}: {found} {details}")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        faulthandler.cancel_dump_traceback_later()
    return {"counts": counts, "failures": failures}


def try_mutants(count: int, seed: int = 1, batch: int = 5000) -> dict[str, Any]:
    """Read mutants in processes that may crash or hang; return the counts of all outcomes, and the failures."""
    counts: Counter[str] = Counter(dict.fromkeys(("right", "refused", "wrong", "unnamed", "crashes", "hangs"), 0))
    failures: list[str] = []
    for numbers in batches(count, batch):
        while numbers:
            with tempfile.TemporaryDirectory(prefix="mutants") as name:
                folder = Path(name)
                arguments = [str(folder), str(folder / "progress"), str(seed), str(numbers.start), str(numbers.stop)]
                found = subprocess.run(
                    [sys.executable, "-m", "faults.mutants", *arguments],
                    cwd=TESTS,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
                    capture_output=True,
                    text=True,
                    timeout=3600,
                    check=False,
                )
                if found.returncode == 0:
                    result = json.loads(found.stdout)
                    counts.update(result["counts"])
                    failures += result["failures"]
                    break
                index = int((folder / "progress").read_text())
            hung = "Timeout" in found.stderr
            counts["hangs" if hung else "crashes"] += 1
            failures.append(f"mutant {index}: status {found.returncode}: {found.stderr[-2000:]}")
            # The counts of the mutants before this one are lost with their process; read them again.
            if index > numbers.start:
                again = try_range(seed, range(numbers.start, index))
                counts.update(again["counts"])
                failures += again["failures"]
            numbers = range(index + 1, numbers.stop)
    return {**counts, "failures": failures}


def try_range(seed: int, numbers: range) -> dict[str, Any]:
    """Read mutants that did not crash before, in this process."""
    with tempfile.TemporaryDirectory(prefix="mutants") as name:
        return read_mutants(Path(name), Path(name) / "progress", seed, numbers)


def batches(count: int, size: int) -> Iterator[range]:
    for first in range(0, count, size):
        yield range(first, min(count, first + size))


if __name__ == "__main__":
    print(
        json.dumps(read_mutants(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), range(*map(int, sys.argv[4:]))))
    )
