"""An estimate of the memory and the time of a run, before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..comm import Comm
from ..comm.grids import Machine, predict_seconds
from ..layout import MatrixLayout
from ..precision import MatvecPrecisionConfig
from ..spectrum.capacity import Need

WORTH_SAYING = 60.0  # seconds from which a run is estimated

# Bytes of values that become a spectrum in a second: of a core, and of a GPU that the host fills (setup.json of
# bench/results). A rank reads files at the third rate.
_CORE_RATE, _GPU_RATE, _FILE_RATE = 6e8, 7e9, 5e8
_MOST_CORES = 8  # that raise the speed of a product, which memory bounds


@dataclass(frozen=True)
class Estimate:
    """The estimate of a run.

    Parameters
    ----------
    spectrum, setup : int
        Bytes of the stored spectrum, and of its set-up, on the rank with the most blocks.
    seconds : float
        The time of the set-up and of all products.
    free : int or None
        The bytes that are free on this rank, if they are known.
    """

    spectrum: int
    setup: int
    seconds: float
    free: int | None

    @classmethod
    def of(
        cls,
        comm: Comm,
        sizes: tuple[int, int, int],
        config: MatvecPrecisionConfig,
        products: Sequence[str],
        count: int,
        *,
        from_file: bool = False,
    ) -> Estimate:
        """Return the estimate of a run on this rank's grid; no message is sent.

        Parameters
        ----------
        comm : Comm
            The process grid.
        sizes : tuple of int
            Global (Nd, Nm, Nt).
        config : MatvecPrecisionConfig
            The precision of the products.
        products : sequence of str
            The names of the products.
        count : int
            How often each of them runs.
        from_file : bool
            Whether the values come from files.
        """
        grid = comm.proc_rows, comm.proc_cols
        need = Need.of(MatrixLayout.of(sizes, grid, (0, 0)), config.sbgemv)
        machine = Machine.of(comm.backend.device_name(), comm.backend.name)
        rate = _GPU_RATE
        if comm.backend.name == "cpu":
            cores = min(comm.backend.threads, _MOST_CORES)
            machine = replace(machine, read=cores * machine.read, transform=cores * machine.transform)
            rate = cores * _CORE_RATE
        values = 8.0 * need.layout.nd * need.layout.nm * need.layout.Nt
        seconds = values / rate + (values / _FILE_RATE if from_file else 0.0)
        seconds += count * sum(predict_seconds(grid, sizes, name, config, machine) for name in products)
        return cls(need.spectrum(need.precision), need.setup, seconds, comm.backend.free_bytes())

    @property
    def fits(self) -> bool:
        """Whether the memory is free, as far as that is known."""
        return self.free is None or self.spectrum + self.setup <= self.free

    def __str__(self) -> str:
        """Return the estimate as a line."""
        total, free = self.spectrum + self.setup, "unknown" if self.free is None else f"{self.free / 1e9:.1f} GB"
        return (
            f"estimate: {in_words(self.seconds)}, and {total / 1e9:.1f} GB of memory on each rank "
            f"({self.spectrum / 1e9:.1f} GB for the spectrum; free: {free})"
        )


def in_words(seconds: float) -> str:
    """Return a duration with its unit.

    >>> in_words(44.0), in_words(90.0), in_words(9000.0)
    ('44 s', '1.5 min', '2.5 h')
    """
    for size, unit, digits in ((3600, "h", 1), (60, "min", 1)):
        if seconds >= size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
