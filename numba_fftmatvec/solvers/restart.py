"""Restart files of a method: its state, written by rank 0 in one step and read by every owner of a part."""

from __future__ import annotations

import hashlib
import itertools
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..comm.collection import Parts
from ..errors import FileError, FileFormatError
from ..io import file_path
from ..io.archive import Archive, archive_writer, open_archive
from ..layout import VectorLayout
from ..vector import Vector
from .base import Floats, Measure, Method

KIND = "restart file of a solver"
_ITERATION, _HISTORY, _MEASURE, _PROBE = "iteration", "history", "measure", "norm of a product"
_DIGEST_MODULUS = 2**64


class Restart:
    """The restart file of a method.

    Parameters
    ----------
    method : Method
        The method; its attributes `vectors` and `arrays` name its state.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        self._comm = method.comm
        path: Any = method.control.restart_file
        with self._comm.agreement("checking the path of the restart file"):
            self._path = file_path(path)
        self._problem: dict[str, str] = {}
        self._probe = 0.0

    def describe(self) -> None:
        """Describe the problem: sizes, parameters, a digest of the right-hand side, and the norm of one product."""
        method, A = self._method, self._method.A
        self._problem = {
            "solver": method.name,
            "operator": " from ".join(f"{layout.space.value} vectors of {layout}" for layout in (A.range, A.domain)),
            **method.problem(),
        }
        b = method.right_hand_side()
        if b is not None:
            self._problem["digest of the right-hand side"] = digest(b)
        x = Vector.from_layout(self._comm, A.domain)
        x.init_vec_doubles()
        self._probe = method.finite((A @ x).norm(), "norm of a product")

    def write(self, measure: Measure, verified: float, history: list[Floats]) -> None:
        """Write the state of the method; an existing file is replaced in one step.

        Parameters
        ----------
        measure : Measure
            The last measure.
        verified : float
            The ratio of the last verification.
        history : list of ndarray
            The rows of the history.
        """
        comm, phase = self._comm, f"writing {self._path}"
        vectors: dict[str, Vector] = {name: getattr(self._method, name) for name in self._method.vectors}
        arrays = {name: np.asarray(getattr(self._method, name), np.float64) for name in self._method.arrays}
        arrays |= {
            _ITERATION: np.array(float(self._method.iteration)),
            _HISTORY: np.array(history),
            _MEASURE: np.array([measure.ratio, verified]),
            _PROBE: np.array(self._probe),
        }
        shapes = {name: array.shape for name, array in arrays.items()}
        shapes |= {name: _shape(vector.layout) for name, vector in vectors.items()}
        description = {"problem": self._problem, "rule": measure.rule}
        with comm.agreement(phase), ExitStack() as stack:
            if comm.world_rank == 0:
                writer = stack.enter_context(archive_writer(self._path, KIND, shapes, description, comm.threads))
                for name, array in arrays.items():
                    writer.write(name, array)
            for name, vector in vectors.items():

                def consume(vector: Vector, parts: Parts, name: str = name) -> None:
                    for blocks, values in parts:
                        rows = values.reshape(vector.num_vecs, -1)
                        for first, row in zip(_firsts(vector.layout, blocks), rows, strict=True):
                            writer.write_part(name, first, row)

                comm.collect(vector.layout, (vector,) if vector.on_grid() else (), _on_host, consume, phase)

    def read(self) -> tuple[Measure, float, list[Floats]]:
        """Set the state of the method from the file; return the arguments of `write`."""
        method, comm, phase = self._method, self._comm, f"reading {self._path}"
        with comm.agreement(phase):
            with comm.agreement(phase), open_archive(self._path, KIND, comm.threads) as file:
                self._check(file)
                names = (*method.arrays, _ITERATION, _HISTORY, _MEASURE)
                arrays = {name: file.read(name) for name in names}
                for name in method.vectors:
                    setattr(method, name, self._read(file, name))
                rule, version = str(file.description["rule"]), file.version
            if len(set(comm.allgather(version, phase))) > 1:
                raise FileError(f"{self._path}: expected one version of the file on all ranks, found several")
        for name in method.arrays:
            setattr(method, name, arrays[name].item() if arrays[name].shape == () else arrays[name])
        method.iteration = int(arrays[_ITERATION])
        ratio, verified = map(float, arrays[_MEASURE])
        history = list(arrays[_HISTORY])
        return Measure(history[-1], ratio, rule), verified, history

    def _read(self, file: Archive, name: str) -> Vector:
        """Return the method's vector of a name with the values of the file, and with as many vectors as there."""
        vector: Vector = getattr(self._method, name)
        layout = replace(vector.layout, num_vecs=file.shapes[name][0])
        if vector.num_vecs != layout.num_vecs:
            vector = Vector.from_layout(self._comm, layout)
        if vector.on_grid():
            values = np.empty(layout.local_shape)
            file.read_parts(name, _firsts(layout, layout.blocks), values.reshape(layout.num_vecs, -1))
            self._comm.backend.upload(vector.array, values)
        vector.init_vec()
        return vector

    def _check(self, file: Archive) -> None:
        """Raise a FileFormatError unless the file has the state of this method for this problem."""
        method, found = self._method, file.description.get("problem")
        for name, expected in self._problem.items():
            value = found.get(name, "none") if isinstance(found, dict) else "none"
            if value != expected:
                raise FileFormatError(
                    f"{self._path}, {name}: expected {expected}, found {value}: the file of another problem"
                )
        expected_names = {_ITERATION, _HISTORY, _MEASURE, _PROBE, *method.arrays, *method.vectors}
        if set(file.shapes) != expected_names or "rule" not in file.description:
            raise FileFormatError(
                f"{self._path}: expected {', '.join(sorted(expected_names))}, found {', '.join(sorted(file.shapes))}"
            )
        for name in method.vectors:
            shape = _shape(getattr(method, name).layout)
            if len(file.shapes[name]) != 3 or file.shapes[name][1:] != shape[1:] or not file.shapes[name][0]:
                raise FileFormatError(f"{self._path}, {name}: expected shape {shape}, found {file.shapes[name]}")
        probe, tolerance = float(file.read(_PROBE)), method.A.unit_roundoff**0.5
        if not abs(probe - self._probe) <= tolerance * self._probe:
            raise FileFormatError(
                f"{self._path}, {_PROBE}: expected {self._probe!r} to {tolerance:.1e}, found {probe!r}: the file of "
                f"another operator"
            )


def digest(vector: Vector) -> str:
    """Return a digest of a vector's values, the same on every process grid. Collective."""
    phase, total = "digest of a vector", 0
    with vector.comm.agreement(phase):
        values = vector.to_numpy()
        if values is not None:
            places = itertools.product(range(vector.num_vecs), vector.blocks)
            for (index, block), content in zip(places, values.reshape(-1, vector.block_size), strict=True):
                place = f"{index} {block} ".encode()
                total += int.from_bytes(hashlib.blake2b(place + content.tobytes(), digest_size=8).digest(), "little")
        shares = vector.comm.allgather(total % _DIGEST_MODULUS, phase)
    return f"{sum(shares) % _DIGEST_MODULUS:016x}"


def _shape(layout: VectorLayout) -> tuple[int, int, int]:
    """Return the shape of the array of a vector in the file."""
    return layout.num_vecs, layout.num_blocks, layout.block_size


def _firsts(layout: VectorLayout, blocks: range) -> list[int]:
    """Return the flat index of the first value of consecutive blocks, in each vector."""
    return [(vector * layout.num_blocks + blocks.start) * layout.block_size for vector in range(layout.num_vecs)]


def _on_host(vector: Vector) -> npt.NDArray[np.float64]:
    return vector.comm.backend.download(vector.array)
