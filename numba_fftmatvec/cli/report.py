"""Reports the timings of products: as tables, as raw lines, and as records of results files."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from .tables import table

# The phases of a product in order: PhaseTimer's names, and the names that tables show.
PHASE_TITLES = {
    "broadcast": "broadcast",
    "pad": "pad",
    "fft": "FFT",
    "sbgemv": "SBGEMV",
    "ifft": "IFFT",
    "unpad": "unpad",
    "reduce": "reduce",
    "total": "total",
}


@dataclass(frozen=True)
class Measurement:
    """The timings of one repeated product on all ranks.

    Parameters
    ----------
    op : str
        The product: F, F*, ...
    seconds : list of dict
        For each rank and phase, the seconds of every repetition; an empty list if the phase did not run.
    spectrum_bytes : list of int
        For each rank, the bytes of its stored spectrum. SBGEMV reads all of them once.
    """

    op: str
    seconds: list[dict[str, list[float]]]
    spectrum_bytes: list[int]

    def rank_means(self, phase: str) -> list[float | None]:
        """Return each rank's mean seconds of a phase, None if it did not run."""
        return [statistics.fmean(rank[phase]) if rank[phase] else None for rank in self.seconds]

    def totals(self) -> list[float]:
        """Return the seconds that the slowest rank took for each repetition."""
        return [max(ranks) for ranks in zip(*(rank["total"] for rank in self.seconds), strict=True)]

    def bandwidth(self) -> float | None:
        """Return the bytes of spectrum that SBGEMV reads per second, averaged over ranks; None if it was not timed."""
        means = self.rank_means("sbgemv")
        rates = [size / mean for size, mean in zip(self.spectrum_bytes, means, strict=True) if mean]
        return statistics.fmean(rates) if rates else None

    def table(self, title: str) -> Table:
        """Return the table of the phases: min, mean and max over the ranks of each rank's mean, in milliseconds."""
        made = table(title, (f"{self.op} [ms]", "min", "mean", "max", "GB/s per rank"), ())
        bandwidth = self.bandwidth()
        for phase, name in PHASE_TITLES.items():
            means = [1e3 * mean for mean in self.rank_means(phase) if mean is not None]
            times = [f"{reduce(means):.4f}" for reduce in (min, statistics.fmean, max)] if means else ["-"] * 3
            beside = f"{bandwidth / 1e9:.2f}" if phase == "sbgemv" and bandwidth else ""
            made.add_row(name, *times, beside, end_section=phase == "reduce")
        return made

    def raw_lines(self) -> Iterator[str]:
        """Yield every timing as a line ``op,rank,repetition,phase,ms``."""
        for rank, phases in enumerate(self.seconds):
            for phase in PHASE_TITLES:
                for repetition, value in enumerate(phases[phase]):
                    yield f"{self.op},{rank},{repetition},{phase},{1e3 * value:.6f}"

    def record(
        self,
        *,
        shape: tuple[int, int, int],
        precision: str,
        grid: tuple[int, int],
        rel_error: float | None,
        peak_bytes: int,
        num_vecs: int = 1,
    ) -> dict[str, Any]:
        """Return the product's record of a results file.

        Times are those of the slowest rank, and bytes those of the rank with the most, as for a single device.

        Parameters
        ----------
        shape : tuple of int
            (Nm, Nd, Nt), global.
        precision : str
            The five-letter code.
        grid : tuple of int
            (proc_rows, proc_cols).
        rel_error : float or None
            The relative error of the result; None if it was not checked.
        peak_bytes : int
            The highest memory use of any rank.
        num_vecs : int, default 1
            The number of right-hand sides of one product.
        """
        totals = self.totals()
        return {
            "benchmark": "matvec",
            "op": self.op,
            "shape": list(shape),
            "precision": precision,
            "ranks": len(self.seconds),
            "grid": list(grid),
            "num_vecs": num_vecs,
            "median_ms": 1e3 * statistics.median(totals),
            "min_ms": 1e3 * min(totals),
            "rel_error": rel_error,
            "peak_bytes": peak_bytes,
            "spectrum_bytes": max(self.spectrum_bytes),
        }
