"""The command ``fftmatvec info``: the sizes of a matrix directory, and the memory that the matrix needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends.cores import Place, present_threads
from ..backends.select import cuda_devices, requested_backend, select_backend
from ..errors import FFTMatvecError, ShapeError
from ..io import MatrixMeta, check_block_row, manifest_path, read_meta
from ..layout import MatrixLayout
from ..precision import Precision
from ..progress import show_progress
from ..spectrum.capacity import Need
from .arguments import one_of
from .parser import Parser
from .paths import check_matrix_directory
from .tables import megabytes, print_json, print_table, table

_REAL, _COMPLEX = 8, 16  # bytes
_MOST_LINES = 5  # of damaged block rows
_NAMES = {"d": "double", "s": "single", "i": "fixed point, 32 bits", "h": "fixed point, 16 bits"}


@dataclass(frozen=True)
class Device:
    """The device that a Comm of one rank would use.

    Parameters
    ----------
    backend, name : str
        The backend, and the name of the device.
    free : int or None
        The free bytes of its memory, None if they are unknown.
    threads : int
        The number of threads of the Comm.
    threads_origin : str
        The origin of this number: a variable, or the share of the cores.
    """

    backend: str
    name: str
    free: int | None
    threads: int
    threads_origin: str

    @classmethod
    def of(cls, backend: str) -> Device:
        """Return the device of a backend; raise an error if it does not work, or if a variable has no valid number."""
        chosen = requested_backend(backend)
        if chosen == "auto":
            chosen = "cuda" if cuda_devices()[0] else "cpu"
        threads = present_threads(chosen)
        made = select_backend(chosen, Place.alone(), threads=threads.number)
        return cls(chosen, made.device_name(), made.free_bytes(), *threads)


@dataclass(frozen=True)
class Directory:
    """A matrix directory: its metadata, and the state of its files.

    Parameters
    ----------
    path : Path
        The directory.
    meta : MatrixMeta
        Its metadata.
    manifest : bool
        Whether it has a manifest.
    digests : int
        The number of block rows with digests.
    damaged : list of str
        The errors of block rows that are missing or break the format. Values are not read.
    """

    path: Path
    meta: MatrixMeta
    manifest: bool
    digests: int
    damaged: list[str]

    @classmethod
    def of(cls, path: Path) -> Directory:
        """Look at all files of a directory; raise an error if its metadata cannot be read."""
        meta, digests, damaged = read_meta(path), 0, []
        for row in show_progress(range(meta.Nd), f"Looking at {path}", enabled=True):
            try:
                digests += check_block_row(path, meta, row)
            except FFTMatvecError as error:
                damaged.append(" ".join(str(error).split()))
        return cls(path, meta, manifest_path(path, meta).exists(), digests, damaged)

    def needs(self) -> dict[str, Need]:
        """Return the memory of the matrix on one rank, by the letter of its storage format."""
        layout = MatrixLayout.of((self.meta.Nd, self.meta.Nm, self.meta.Nt), (1, 1), (0, 0))
        return {precision.value: Need.of(layout, precision) for precision in Precision}

    @property
    def buffers(self) -> int:
        """Bytes between the stages of products in double precision: blocks and spectra of both vectors."""
        return (_REAL * self.meta.Nt + _COMPLEX * (self.meta.Nt + 1)) * (self.meta.Nd + self.meta.Nm)

    def record(self) -> dict[str, Any]:
        """Return the description for JSON."""
        meta, needs = self.meta, self.needs()
        return {
            "path": str(self.path),
            "Nd": meta.Nd,
            "Nm": meta.Nm,
            "Nt": meta.Nt,
            "quantities_of_interest": meta.is_p2q,
            "checksum": meta.checksum or None,
            "manifest": self.manifest,
            "rows_with_digests": self.digests,
            "damaged": self.damaged,
            "file_bytes": _REAL * meta.Nd * meta.Nm * meta.Nt,
            "spectrum_bytes": {letter: need.spectrum(need.precision) for letter, need in needs.items()},
            "setup_bytes": needs["d"].setup,
            "buffer_bytes": self.buffers,
        }


def build_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        "Print the sizes of a matrix, the memory of its spectrum in each storage format, the formats that fit the "
        "device of this machine, and the state of its files. Values are not read: 'fftmatvec check' reads them."
    )
    parser = Parser("info", description)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a matrix directory")
    parser.add_argument("--aux", type=Path, metavar="DIR", help="the directory of the auxiliary matrix G")
    backend = "the memory to compare with: auto, cpu or cuda"
    parser.add_argument("--backend", type=one_of("auto", "cpu", "cuda"), default="auto", metavar="NAME", help=backend)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; the status is 1 if a block row is missing or breaks the format."""
    options = build_parser().values(arguments)
    paths = {"F": options["directory"], "G": options["aux"]}
    for path in filter(None, paths.values()):
        check_matrix_directory(path)
    found = {name: Directory.of(path) for name, path in paths.items() if path is not None}
    _check_pair(found)
    device = Device.of(options["backend"])
    totals = _totals(found)
    fits = {letter: None if device.free is None else total <= device.free for letter, total in totals.items()}
    if options["json"]:
        record = {"matrices": {name: directory.record() for name, directory in found.items()}}
        print_json(record | {"device": vars(device), "total_bytes": totals, "fits": fits})
    else:
        _print(found, device, totals, fits)
    return 1 if any(directory.damaged for directory in found.values()) else 0


def _check_pair(found: dict[str, Directory]) -> None:
    """Raise a ShapeError unless F and G have the same parameters."""
    sizes = {name: (directory.meta.Nm, directory.meta.Nt) for name, directory in found.items()}
    if sizes.get("G", sizes["F"]) != sizes["F"]:
        F, G = sizes["F"], sizes["G"]
        raise ShapeError(
            f"--aux: expected Nm {F[0]} and Nt {F[1]}, those of {found['F'].path}, found Nm {G[0]} and Nt {G[1]}; "
            f"give the directory of a matrix of the same parameters"
        )


def _totals(found: dict[str, Directory]) -> dict[str, int]:
    """Return the bytes of all spectra, of the largest set-up and of the buffers, by storage format."""
    needs = [directory.needs() for directory in found.values()]
    extra = max(each["d"].setup for each in needs) + sum(directory.buffers for directory in found.values())
    return {letter: sum(each[letter].spectrum(each[letter].precision) for each in needs) + extra for letter in _NAMES}


def _print(found: dict[str, Directory], device: Device, totals: dict[str, int], fits: dict[str, bool | None]) -> None:
    """Print the tables, and a line for each damaged block row."""
    for name, directory in found.items():
        meta = directory.meta
        kind = "quantities of interest" if meta.is_p2q else "observations"
        rows = [
            ("Nd, block rows", str(meta.Nd)),
            ("Nm, block columns", str(meta.Nm)),
            ("Nt, time steps", str(meta.Nt)),
            ("rows are", kind),
            ("checksum", str(meta.checksum or "none")),
            ("manifest", "present" if directory.manifest else "none"),
            ("block rows with digests", f"{directory.digests} of {meta.Nd}"),
            ("block rows that cannot be used", str(len(directory.damaged))),
        ]
        print_table(table(f"{name}: {directory.path}", ("matrix", "value"), rows))
    free = "unknown" if device.free is None else megabytes(device.free)
    rows = [
        ("backend", device.backend),
        ("free memory [MB]", free),
        ("threads", f"{device.threads}, by {device.threads_origin}"),
    ]
    print_table(table(f"One rank on {device.name}", ("device", "value"), rows))
    print_table(table(*_memory(found, totals, fits), left=2))
    damaged = [line for directory in found.values() for line in directory.damaged]
    for line in damaged[:_MOST_LINES]:
        print(line)
    if damaged:
        print(f"{len(damaged)} damaged block rows; 'fftmatvec check DIR' explains each of them")


def _memory(
    found: dict[str, Directory], totals: dict[str, int], fits: dict[str, bool | None]
) -> tuple[str, list[str], list[list[str]]]:
    """Return the title, the headings and the cells of the table of storage formats."""
    answers = {None: "unknown", True: "yes", False: "no"}
    spectra = [f"spectrum of {name} [MB]" for name in found]
    rows = []
    for letter, name in _NAMES.items():
        needs = [directory.needs()[letter] for directory in found.values()]
        sizes = [megabytes(need.spectrum(need.precision)) for need in needs]
        rows.append([letter, name, *sizes, megabytes(totals[letter]), answers[fits[letter]]])
    return "Memory of one rank", ["code", "storage", *spectra, "with set-up and buffers [MB]", "fits"], rows
