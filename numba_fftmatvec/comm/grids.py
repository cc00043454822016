"""The choice of a process grid by a model of the time of products.

A rank of a pr x pc grid holds nd = ceil(Nd / pr) block rows and nm = ceil(Nm / pc) block columns. The model adds the
times of the phases of F on the rank with the most blocks::

    overhead                                 launches, and the wait for the result
    + S(nd, nm, Nt) / read                   SBGEMV reads the stored spectrum once
    + Nt (nm w_fft + nd w_ifft) / transform  pad and FFT of the operand, IFFT and unpad of the result
    + C(pr, Nt nm w_broadcast)               broadcast of the operand's part down a column of the grid
    + C(pc, Nt nd w_reduce)                  sum of the partial results along a row

where w is the bytes of a real number in the precision of the phase. F* exchanges rows and columns. A collective of n
bytes among p ranks takes::

    C(p, n) = ceil(log2 p) latency + 2 (p - 1) / p  n / link        and C(1, n) = 0

The terms of the phases are those of Venkat, Fernando, Henneking and Ghattas (arXiv:2407.13066), who partition the
matrix in two dimensions and choose the grid by its communication. Their collectives take latency + n / link, times the
logarithm of p. C has the bandwidth term of a broadcast by scatter and allgather, and of a sum by reduce-scatter and
gather (Thakur, Rabenseifner and Gropp, Int. J. High Perform. Comput. Appl. 19(1), 2005). That term grows by 1.5 from
two ranks to four. NCCL's broadcast of 40 MB takes 1.5 to 1.6 times as long on four GPUs as on two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..arguments import positive_int
from ..errors import GridError
from ..layout import Space
from ..precision import MatvecPrecisionConfig
from ..products import Factor, product_named


@dataclass(frozen=True)
class Machine:
    """The measured speeds of a device and of the links between ranks.

    Parameters
    ----------
    read : float
        Bytes of the stored spectrum that SBGEMV reads in a second.
    transform : float
        Bytes of a vector that are padded and transformed in a second, or transformed back.
    overhead : float
        Seconds of a product without data.
    latency : float
        Seconds of a step of a collective, with its launch.
    link : float
        Bytes that a rank sends to another one in a second.
    """

    read: float
    transform: float
    overhead: float
    latency: float
    link: float

    @classmethod
    def of(cls, device: str, backend: str) -> Machine:
        """Return the machine of a device's name; of an unknown device, the one that stands for its backend."""
        return _DEVICES.get(device, CPU if backend == "cpu" else H100)


#: One to four NVIDIA H100 with NVLink, and NCCL; fitted to the products on one and on four devices.
H100 = Machine(read=3.05e12, transform=4.1e11, overhead=13e-6, latency=13e-6, link=263e9)

#: NVIDIA H200 with NVLink, and NCCL; fitted to the products on one device, with the H100's collectives.
H200 = Machine(read=4.46e12, transform=4.8e11, overhead=18e-6, latency=13e-6, link=263e9)

#: A core for each rank: half the speeds of products on two cores. Latency and link are estimates of MPI on one machine.
CPU = Machine(read=11e9, transform=1e9, overhead=50e-6, latency=10e-6, link=4e9)

_DEVICES = {"NVIDIA H100 80GB HBM3": H100, "NVIDIA H200": H200}


def best_grid(
    Nd: int,
    Nm: int,
    Nt: int,
    ranks: int,
    p_config: MatvecPrecisionConfig | None = None,
    *,
    products: Sequence[str] = ("F", "F*"),
    machine: Machine = H100,
) -> tuple[int, int]:
    """Return the process grid (proc_rows, proc_cols) on which products are the fastest, by the model of this module.

    Every rank must hold at least one block. Of equally fast grids the one with the fewest rows is returned.

    Parameters
    ----------
    Nd, Nm, Nt : int
        Global number of block rows and block columns, and the block size.
    ranks : int
        Number of ranks.
    p_config : MatvecPrecisionConfig, optional
        Precision of the stages; double by default.
    products : sequence of str
        The products whose times are added: names such as ``"F"``, ``"F*"`` and ``"F*F"``.
    machine : Machine
        The speeds of the devices and links; by default those of NVIDIA H100 with NVLink.

    Raises
    ------
    ShapeError
        A size or the number of ranks is not a positive integer.
    GridError
        No grid of so many ranks has a block for every rank.
    ArgumentError
        The name of a product is unknown.

    Examples
    --------
    >>> best_grid(100, 5000, 1000, ranks=4)
    (1, 4)
    >>> best_grid(5000, 100, 1000, ranks=4)
    (4, 1)
    """
    sizes = positive_int(Nd, "Nd"), positive_int(Nm, "Nm"), positive_int(Nt, "Nt")
    count = positive_int(ranks, "ranks")
    grids = [grid for grid in grids_of(count) if grid[0] <= sizes[0] and grid[1] <= sizes[1]]
    if not grids:
        raise GridError(f"process grid: expected a block for each of {count} ranks, found {Nd} x {Nm} blocks")
    return min(grids, key=lambda grid: sum(predict_seconds(grid, sizes, name, p_config, machine) for name in products))


def grids_of(ranks: int) -> list[tuple[int, int]]:
    """Return the process grids of a number of ranks, in the order of their rows.

    >>> grids_of(6)
    [(1, 6), (2, 3), (3, 2), (6, 1)]
    """
    return [(rows, ranks // rows) for rows in range(1, ranks + 1) if ranks % rows == 0]


def checked_grid(ranks: int, proc_rows: int, proc_cols: int | None) -> tuple[int, int]:
    """Return the rows and columns of a grid of all ranks; None stands for as many columns as the ranks allow."""
    rows = positive_int(proc_rows, "proc_rows")
    cols = ranks // rows if proc_cols is None else positive_int(proc_cols, "proc_cols")
    if rows * cols != ranks:
        raise GridError(f"process grid: expected proc_rows * proc_cols = {ranks} ranks, found {rows} x {cols}")
    return rows, cols


def predict_seconds(
    grid: tuple[int, int],
    sizes: tuple[int, int, int],
    product: str,
    p_config: MatvecPrecisionConfig | None = None,
    machine: Machine = H100,
) -> float:
    """Return the seconds of a product on a process grid, by the model of this module.

    Parameters
    ----------
    grid : tuple of int
        (proc_rows, proc_cols).
    sizes : tuple of int
        Global (Nd, Nm, Nt).
    product, p_config, machine
        See `best_grid`.
    """
    config = p_config or MatvecPrecisionConfig()
    return sum(_factor_seconds(grid, sizes, factor, config, machine) for factor in product_named(product).factors)


def _factor_seconds(
    grid: tuple[int, int], sizes: tuple[int, int, int], factor: Factor, config: MatvecPrecisionConfig, machine: Machine
) -> float:
    (pr, pc), (Nd, Nm, Nt) = grid, sizes
    nd, nm = -(-Nd // pr), -(-Nm // pc)
    # For each space: the values of a rank's part of a vector, and the ranks that need the same part.
    values = {Space.COL: nm * Nt, Space.ROW: nd * Nt}
    copies = {Space.COL: pr, Space.ROW: pc}
    operand, result = factor.input_space, factor.output_space
    spectrum = config.sbgemv.format.nbytes(nd, nm, Nt + 1)
    transformed = values[operand] * config.fft.real.itemsize + values[result] * config.ifft.real.itemsize
    sent = values[operand] * config.broadcast_and_pad.real.itemsize
    summed = values[result] * config.unpad_and_reduce.real.itemsize
    return (
        machine.overhead
        + spectrum / machine.read
        + transformed / machine.transform
        + _collective_seconds(copies[operand], sent, machine)
        + _collective_seconds(copies[result], summed, machine)
    )


def _collective_seconds(ranks: int, size: int, machine: Machine) -> float:
    """Return the seconds of a broadcast or a sum of `size` bytes."""
    steps = (ranks - 1).bit_length()  # log2 of the ranks, rounded up
    return steps * machine.latency + 2 * (ranks - 1) / ranks * size / machine.link
