"""The CPU's blocks of products, of which a measurement on the machine at hand chooses one for large problems.

Which block is fastest depends on the processor. A measurement multiplies a sample of the problem that fits the cache,
takes at most `SECONDS` after the kernels are compiled, and is kept beside numba's cached kernels. Without a folder that
can be written the process keeps it. NUMBA_FFTMATVEC_MEASURE=0 takes the first block that fits instead.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2s
from pathlib import Path
from typing import Any

import numpy as np
from numba.core.registry import cpu_target

from ..formats import PARTS, StoredArrays, aligned, vector_tiles
from ..jit import cache_folder, ceil_div
from ..lanes import NARROWER, WIDEST, Block, vector_width
from .problem import Problem

VARIABLE = "NUMBA_FFTMATVEC_MEASURE"
FILE = "sbgemv_blocks.json"
LARGE = 8 << 20  # bytes of a spectrum from which a measurement pays
SAMPLE = 1 << 20  # bytes of the sample's spectrum in double
MOST = 64, 512  # block rows and block columns of the sample
SECONDS = 0.05
RUNS = 5

# Each sum takes two of the processor's vectors, of which AVX-512 has 32 and AVX2 has 16. The sums of a long block are
# stored less often, and several vectors share the loads of a block of the spectrum. By doubles in a vector of the
# processor and the operation; the best guess is the first.
ONE = {False: (Block(4, 8), Block(2, 16)), True: (Block(4, 8), Block(4, 4))}
SEVERAL = {
    WIDEST: {
        False: (Block(4, 8, 2), Block(4, 16, 2)),
        True: (Block(16, 2, 4), Block(8, 2, 4), Block(8, 4, 2), Block(4, 4, 2)),
    },
    NARROWER: {
        False: (Block(2, 16, 2), Block(4, 16)),
        True: (Block(16, 2, 2), Block(8, 2, 2), Block(4, 4)),
    },
}

Multiply = Callable[[Any, StoredArrays, Any], None]


def candidates(problem: Problem) -> Sequence[Block]:
    """Return the blocks that block rows and vectors fill, at most two, or the smallest if none does."""
    if problem.num_vecs == 1:
        return ONE[problem.adjoint]
    vectors, *_ = vector_tiles(problem.num_vecs, 1, 1)
    found = SEVERAL[vector_width()][problem.adjoint]
    fitting = [block for block in found if block.down <= problem.nd and vectors % block.vecs == 0]
    return fitting[:2] or found[-1:]


def measures() -> bool:
    """Return whether blocks are measured; a ValueError refuses another value of the environment variable."""
    value = os.environ.get(VARIABLE, "1")
    if value not in ("0", "1"):
        raise ValueError(f"{VARIABLE}: expected 0 or 1, found {value!r}")
    return value == "1"


def choose_block(problem: Problem, launcher: Callable[[Problem, Block], Multiply]) -> Block:
    """Return the fastest block of a large problem, or the first of a small one.

    Parameters
    ----------
    problem : Problem
        The problem.
    launcher : callable
        ``launcher(problem, block)`` returns the SBGEMV of a block.
    """
    blocks = candidates(problem)
    if len(blocks) == 1 or problem.spectrum_bytes < LARGE or not measures():
        return blocks[0]
    sampled = sample_of(problem)
    key = _key(sampled)
    found = _remembered(key)
    if found is None or found not in blocks:
        found = _fastest(sampled, blocks, launcher)
        _remember(key, found)
    return found


def sample_of(problem: Problem) -> Problem:
    """Return a problem of the same operation that is small enough to be measured."""
    nd, nm = (min(count, most) for count, most in zip((problem.nd, problem.nm), MOST, strict=True))
    tiles = ceil_div(SAMPLE, 8 * PARTS * nd * nm)
    length = min(problem.length, 2 * (4 * tiles - 1))
    return replace(problem, nd=nd, nm=nm, length=length)


def _fastest(problem: Problem, blocks: Sequence[Block], launcher: Callable[[Problem, Block], Multiply]) -> Block:
    sizes = problem.nd, problem.nm, problem.frequencies
    values, scales = problem.format.tiled(*sizes)
    spectrum = StoredArrays(aligned(np.zeros, values, problem.format.part), np.zeros(scales))
    result, vector = (
        aligned(np.zeros, vector_tiles(problem.num_vecs, problem.frequencies, count), np.float64)
        for count in (problem.results, problem.reduced)
    )
    programs = {block: launcher(problem, block) for block in blocks}
    best = dict.fromkeys(blocks, math.inf)
    end = time.perf_counter() + SECONDS
    for _ in range(RUNS):
        for block, multiply in programs.items():
            start = time.perf_counter()
            multiply(result, spectrum, vector)
            best[block] = min(best[block], time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return min(best, key=lambda block: best[block])


# Choices by key, of this process and of the file.
_choices: dict[str, Block] = {}


def _key(problem: Problem) -> str:
    processor = blake2s(repr(cpu_target.target_context.codegen().magic_tuple()).encode(), digest_size=8).hexdigest()
    operation = "F*" if problem.adjoint else "F"
    sizes = f"{problem.nd}x{problem.nm}x{problem.frequencies}"
    return f"{processor} {operation} {problem.format.name} {sizes} of {problem.num_vecs}"


def _file() -> Path:
    return Path(cache_folder()) / FILE


def _stored() -> Mapping[str, Sequence[int]]:
    """Return the choices of the file; none if it is absent or damaged, since a measurement replaces them."""
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError, RuntimeError):  # numba raises RuntimeError without a folder
        return {}
    return found if isinstance(found, dict) else {}


def _remembered(key: str) -> Block | None:
    if key not in _choices:
        with suppress(KeyError, TypeError):  # no choice, or a damaged one
            _choices[key] = Block(*_stored()[key])
    return _choices.get(key)


def _remember(key: str, block: Block) -> None:
    """Keep a choice in this process and, where that is possible, in the file."""
    _choices[key] = block
    with suppress(OSError, RuntimeError):
        path = _file()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{FILE}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps({**_stored(), key: list(block)}, indent=1))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
