"""Files of an inversion: the factor with all that the online step needs, and the state of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..comm import Comm
from ..errors import ChecksumError
from ..io import Archive, FilePath, archive_writer, file_path, open_archive
from .factor import Factor, ForecastFactor
from .panels import PanelMatrix, TimeMajor

Floats = npt.NDArray[np.float64]
Named = Iterable[tuple[str, Callable[[], Floats]]]  # each call returns the array on every rank, and is collective

FACTOR, STREAM = "factor of an inversion", "state of a stream"


def save_arrays(
    comm: Comm, path: FilePath, kind: str, shapes: Mapping[str, tuple[int, ...]], content: dict[str, Any], arrays: Named
) -> None:
    """Write arrays that the ranks share, from the first rank. Collective; an error on any rank leaves the old file."""
    with comm.agreement(f"writing a {kind}"):
        with comm.agreement(f"writing a {kind}"):
            path = file_path(path)
        phase = f"writing {path}"
        first = comm.world_rank == 0
        with archive_writer(path, kind, shapes, content, comm.threads) if first else nullcontext() as writer:
            for name, values in arrays:
                array = values()
                with comm.agreement(phase):
                    if writer is not None:
                        writer.write(name, array)


@contextmanager
def read_arrays(comm: Comm, path: FilePath, kind: str) -> Iterator[Archive]:
    """Yield an archive that all ranks read, each its parts. Collective; the body is an agreed block."""
    with comm.agreement(f"reading a {kind}"):
        with comm.agreement(f"reading a {kind}"):
            path = file_path(path)
        phase = f"reading {path}"
        with comm.agreement(phase), open_archive(path, kind, comm.threads) as archive:
            with comm.agreement(phase, {"version of the file": archive.version}):
                pass
            yield archive


def save_factor(path: FilePath, factor: Factor, probes: Mapping[str, Floats]) -> None:
    """Write the factor, and probes that identify the model. Collective."""
    matrices = _matrices(factor)
    panels = {
        f"{name}.{panel}": (matrix, panel) for name, matrix in matrices.items() for panel in range(_count(matrix))
    }
    plain = {"log_diagonal": factor.log_diagonal, **probes}
    if factor.forecast is not None:
        plain["variance"] = factor.forecast.variance
    shapes = {name: matrix.shape_of(panel) for name, (matrix, panel) in panels.items()}
    shapes |= {name: values.shape for name, values in plain.items()}
    content = {"data": _sizes(factor.index)}
    if factor.forecast is not None:
        content["quantities"] = _sizes(factor.forecast.index)

    def arrays() -> Iterator[tuple[str, Callable[[], Floats]]]:
        for name, values in plain.items():
            yield name, partial(np.asarray, values)
        for name, (matrix, panel) in panels.items():
            yield name, partial(matrix.on_host, panel)

    save_arrays(factor.comm, path, FACTOR, shapes, content, arrays())


def load_factor(comm: Comm, path: FilePath, probes: Mapping[str, Floats], tolerances: Mapping[str, float]) -> Factor:
    """Return the factor of a file whose probes are those of the model, up to relative tolerances. Collective.

    Raises
    ------
    FileError, FileFormatError, ChecksumError
        The file cannot be read or is damaged, or it was made for another model.
    """
    with read_arrays(comm, path, FACTOR) as archive:
        _check_probes(archive, file_path(path), probes, tolerances)
        data = _index(archive, "data")
        quantities = _index(archive, "quantities")
        lower = PanelMatrix(comm, data, data, lower=True)
        matrices = {"lower": lower}
        if quantities is not None:
            matrices["weights"] = PanelMatrix(comm, quantities, data, lower=False)
            matrices["gain"] = PanelMatrix(comm, quantities, data, lower=False)
            matrices["prior"] = PanelMatrix(comm, quantities, quantities, lower=True)
        for name, matrix in matrices.items():
            matrix.allocate()
            for panel, values in matrix.panels.items():
                comm.backend.upload(values, archive.read(f"{name}.{panel}"))
        forecast = None
        if quantities is not None:
            variance = archive.read("variance")
            forecast = ForecastFactor(matrices["weights"], matrices["gain"], matrices["prior"], variance)
        return Factor(lower, forecast, archive.read("log_diagonal"))


def _check_probes(archive: Archive, path: Any, probes: Mapping[str, Floats], tolerances: Mapping[str, float]) -> None:
    stored = {name for name in archive.shapes if name.startswith("probe.")}
    if stored != set(probes):
        raise ChecksumError(f"{path}: expected a factor with {sorted(probes)}, found one with {sorted(stored)}")
    for name, values in probes.items():
        found = archive.read(name)
        if found.shape != values.shape:
            raise ChecksumError(f"{path}, {name}: expected shape {values.shape}, found {found.shape}: another model")
        difference = float(np.abs(found - values).max() / np.abs(values).max())
        if not difference <= tolerances[name]:
            raise ChecksumError(
                f"{path}, {name}: expected the factor of this model to {tolerances[name]:.1e}, found a difference of "
                f"{difference:.1e}: another matrix, prior or noise"
            )


def _matrices(factor: Factor) -> dict[str, PanelMatrix]:
    forecast = factor.forecast
    others = {} if forecast is None else {name: getattr(forecast, name) for name in ("weights", "gain", "prior")}
    return {"lower": factor.lower, **others}


def _count(matrix: PanelMatrix) -> int:
    return len(matrix.rows.panels)


def _sizes(index: TimeMajor) -> dict[str, Any]:
    return {"blocks": index.blocks, "steps": index.steps, "panels": [len(panel) for panel in index.panels]}


def _index(archive: Archive, name: str) -> Any:
    sizes = archive.description.get(name)
    if sizes is None:
        return None
    ends = np.cumsum(sizes["panels"]).tolist()
    panels = tuple(range(end - count, end) for end, count in zip(ends, sizes["panels"], strict=True))
    return TimeMajor(sizes["blocks"], sizes["steps"], panels)
