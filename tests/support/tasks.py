"""The computations of every process grid, in sections; the tests in `suites` compare the results with references."""

from __future__ import annotations

import itertools
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from support.files import write_matrix
from support.reference import PRODUCTS

Array = NDArray[Any]

# (Nd, Nm, Nt): neither 2 nor 3 divides Nd or Nm; an odd and an even number of steps, the latter a power of 2.
SHAPES = ((5, 7, 13), (7, 5, 16))
CODES = tuple("".join(letters) for letters in itertools.product("ds", repeat=5))
FIXED_CODES = ("ddidd", "ddhdd", "ssiss", "dshsd")
SEVERAL_CODES = ("ddddd", "dssdd", "ddidd", "ddhdd")
SEVERAL = (2, 3, 19)  # numbers of right-hand sides: even, odd, and more than a kernel takes at once
SINGLE_STAGE_CODES = tuple(code for code in CODES if code.count("s") == 1)
FILLS = ("ones", "zeros", "doubles", "consecutive")
NORM_ORDERS = (2, 1, 0, -1, float("inf"))
CHECKSUM = 73


@dataclass(frozen=True)
class Setting:
    """The settings of a run of the sections."""

    grid: tuple[int, int]
    backend: str
    collectives: str
    folder: Path
    reference: Path | None


@dataclass(frozen=True)
class Failure:
    """A section that raised instead of returning."""

    trace: str


def operands(shape: tuple[int, int, int]) -> tuple[Array, Array, dict[str, Array]]:
    """Return F, G and the vectors of the two spaces for a shape, the same on every rank."""
    Nd, Nm, Nt = shape
    random = np.random.default_rng(shape)
    F, G = random.standard_normal((2, Nd, Nm, Nt))
    return F, G, {"col": random.standard_normal((Nm, Nt)), "row": random.standard_normal((Nd, Nt))}


def prepare(folder: Path) -> None:
    """Write the files that the section `files` reads."""
    F, G, _ = operands(SHAPES[0])

    def relax(file: Any) -> None:
        """Use the attribute types and the extra attributes that real files have."""
        attributes = file["vec"].attrs
        attributes["reindex"] = np.float64(1)
        attributes["n_param"] = np.uint8(F.shape[1])
        attributes["param_steps"] = np.int64(F.shape[2])
        attributes["xmin"] = 0.5

    write_matrix(folder / "F", F, newline="\r\n", checksum=CHECKSUM, edits=dict.fromkeys(range(F.shape[0]), relax))
    write_matrix(folder / "G", G, checksum=CHECKSUM)


def everything(setting: Setting) -> dict[str, Any]:
    """Run all sections on this rank's grid; a section that raises leaves a Failure."""
    import numba_fftmatvec as fm

    with fm.Comm(MPI.COMM_WORLD, *setting.grid, backend=setting.backend, collectives=setting.collectives) as comm:
        results = {"grid": grid(comm), "folder": setting.folder}
        for section in (products, several, dots, vectors, matrices, files, reference):
            try:
                results[section.__name__] = section(comm, setting)
            except Exception:
                trace = traceback.format_exc()
                print(f"rank {comm.world_rank}, section {section.__name__}:\n{trace}", file=sys.stderr, flush=True)
                results[section.__name__] = Failure(trace)
    return results


def grid(comm: Any) -> dict[str, Any]:
    """Return the Comm's description of this rank, by getter and by property."""
    names = ("world_rank", "world_size", "proc_rows", "proc_cols", "row_color", "col_color", "device")
    found = {name: getattr(comm, name) for name in names}
    found["getters"] = {name: getattr(comm, f"get_{name}")() for name in names}
    found["backend"] = comm.backend.name
    found["sizes"] = (comm.global_comm.size, comm.row_comm.size, comm.col_comm.size)
    return found


def build(comm: Any, F: Array, G: Array, code: str = "ddddd") -> Any:
    """Return an initialised Matrix with an auxiliary one."""
    import numba_fftmatvec as fm

    Nd, Nm, Nt = F.shape
    config = fm.MatvecPrecisionConfig.from_code(code)
    matrix = fm.Matrix(comm, Nm, Nd, Nt, global_sizes=True, p_config=config)
    matrix.init_mat_from_array(F)
    matrix.init_mat_from_array(G, aux_mat=True)
    return matrix


def vector(matrix: Any, space: str, values: Array | None = None) -> Any:
    """Return a vector of one of the matrix's spaces, with values if they are given."""
    made = matrix.get_vec({"col": "input", "row": "output"}[space])
    if values is not None:
        made.scatter(values)
    return made


def multiply(matrix: Any, name: str, operand: Array) -> Any:
    """Return the result of a product of PRODUCTS for a global operand."""
    flags = PRODUCTS[name]
    target = vector(matrix, flags.target)
    source = vector(matrix, flags.source, operand)
    getattr(matrix, flags.method)(source, target, use_aux_mat=flags.use_aux_mat, full=flags.full)
    return target


def products(comm: Any, setting: Setting) -> dict[Any, Array]:
    """Return every product in every precision, by (shape, code, name)."""
    results = {}
    for shape, code in itertools.product(SHAPES, CODES + FIXED_CODES):
        F, G, x = operands(shape)
        matrix = build(comm, F, G, code)
        for name, flags in PRODUCTS.items():
            results[shape, code, name] = multiply(matrix, name, x[flags.source]).gather()
    return results


def many(shape: tuple[int, int, int], space: str, count: int) -> Array:
    """Return `count` vectors of a space, of magnitudes that differ."""
    _, _, x = operands(shape)
    rolled = np.stack([np.roll(x[space], i, axis=1) for i in range(count)])
    return rolled * 2.0 ** np.arange(count)[:, None, None]


def several(comm: Any, setting: Setting) -> dict[Any, Any]:
    """Return products of several vectors, and whether a second run has the same bits, by (shape, code, name, count)."""
    results = {}
    for shape, code, count in itertools.product(SHAPES, SEVERAL_CODES, SEVERAL):
        F, G, _ = operands(shape)
        matrix = build(comm, F, G, code)
        for name, flags in PRODUCTS.items():
            x = matrix.get_vec({"col": "input", "row": "output"}[flags.source], num_vecs=count)
            y = matrix.get_vec({"col": "input", "row": "output"}[flags.target], num_vecs=count)
            x.scatter(many(shape, flags.source, count))
            method = getattr(matrix, {"matvec": "matmat", "transpose_matvec": "transpose_matmat"}[flags.method])
            runs = []
            for _ in range(3):  # by then a GPU replays its graph
                method(x, y, use_aux_mat=flags.use_aux_mat, full=flags.full)
                runs.append(y.gather())
            results[shape, code, name, count] = runs[0], all(np.array_equal(runs[0], run) for run in runs)
    return results


def dots(comm: Any, setting: Setting) -> dict[Any, tuple[float, float]]:
    """Return <F x, y> and <x, F* y>, and the same of G, by (code, name)."""
    results = {}
    F, G, x = operands(SHAPES[0])
    for code, name in itertools.product(CODES, "FG"):
        matrix = build(comm, F, G, code)
        forward = multiply(matrix, name, x["col"]).dot(vector(matrix, "row", x["row"]))
        backward = vector(matrix, "col", x["col"]).dot(multiply(matrix, f"{name}*", x["row"]))
        results[code, name] = (forward, backward)
    return results


def vectors(comm: Any, setting: Setting) -> dict[str, Any]:
    """Return, for each space, the layout of a Vector, the values of its fills, and the values read from a file."""
    import numba_fftmatvec as fm

    Nd, Nm, Nt = SHAPES[0]
    values = operands(SHAPES[0])[2]
    results = {}
    for space, blocks in (("col", Nm), ("row", Nd)):
        made = fm.Vector(comm, blocks, Nt, space, global_sizes=True)
        found = {"initialized at first": made.is_initialized()}
        for fill in FILLS:
            getattr(made, f"init_vec_{fill}")()
            found[fill] = made.gather()
        found["initialized"] = made.is_initialized()
        made.scatter(values[space])
        found["gathered"] = made.gather()
        found["layout"] = layout(made)
        found["norms"] = [made.norm(order) for order in NORM_ORDERS]
        found["default norm"] = made.norm()
        other = fm.Vector(comm, blocks, Nt, space, global_sizes=True)
        other.init_vec_consecutive()
        found["dot"] = made.dot(other)
        for qoi in (False, True):
            path = setting.folder / f"{space}{qoi}.h5"
            made.save(str(path), QoI=qoi)
            read = fm.Vector(comm, blocks, Nt, space, global_sizes=True)
            read.init_vec_from_file(str(path), QoI=qoi)
            found["read", qoi] = read.gather()
        found["local sizes"] = fm.Vector(comm, 3, 4, space).get_glob_num_blocks()
        found["marked"] = marked(fm.Vector(comm, blocks, Nt, space, global_sizes=True))
        results[space] = found
    return results


def layout(made: Any) -> dict[str, Any]:
    """Return this rank's view of a Vector."""
    return {
        "on_grid": made.on_grid(),
        "blocks": made.get_num_blocks(),
        "global blocks": made.get_glob_num_blocks(),
        "block size": made.get_block_size(),
        "array": None if made.array is None else tuple(made.array.shape),
        "numpy": made.to_numpy(),
    }


def marked(made: Any) -> Array:
    """Return the gathered values of a Vector with an array that was filled by hand."""
    if made.array is not None:
        made.array[...] = 2.5
    made.init_vec()
    return np.asarray(made.gather())


def matrices(comm: Any, setting: Setting) -> dict[str, Any]:
    """Return the matrices' sizes, and the results of fills and checks."""
    import numba_fftmatvec as fm

    Nd, Nm, Nt = SHAPES[0]
    F, G, x = operands(SHAPES[0])
    found: dict[str, Any] = {}
    for fill in ("ones", "doubles"):
        matrix = fm.Matrix(comm, Nm, Nd, Nt, global_sizes=True)
        for aux in (False, True):
            getattr(matrix, f"init_mat_{fill}")(aux_mat=aux)
        for name, flags in PRODUCTS.items():
            found[fill, name] = multiply(matrix, name, x[flags.source]).gather()
        if fill == "ones":
            found["errors"] = {name: verified(comm, matrix, name) for name in PRODUCTS}
            found["rejections"] = {name: rejected(comm, matrix, name) for name in PRODUCTS}
    found["original"] = original_products(comm)
    callable_made = fm.Matrix(comm, Nm, Nd, Nt, global_sizes=True)
    callable_made.init_mat_from_array(lambda d: F[d])
    found["from callable"] = multiply(callable_made, "F", x["col"]).gather()
    local = fm.Matrix(comm, 3, 2, 4)
    found["local sizes"] = (
        local.get_num_cols(),
        local.get_num_rows(),
        local.get_glob_num_cols(),
        local.get_glob_num_rows(),
    )
    found["shares"] = (matrix.get_num_cols(), matrix.get_num_rows())
    found["padded size"] = (matrix.get_block_size(), matrix.get_padded_size())
    found["shape"] = tuple(matrix.shape)
    found["nbytes"] = {code: build(comm, F, G, code).nbytes for code in ("ddddd", "ddsdd", "ssdss")}
    made = build(comm, F, G)
    found["phases"] = {name: phases(made, name) for name in ("F", "F*")}
    found["operator"] = (made @ vector(made, "col", x["col"])).gather()
    found["operator*"] = (made.T @ vector(made, "row", x["row"])).gather()
    return found


def original_products(comm: Any) -> dict[str, Array]:
    """Return F and F* of doubles, in the sizes that pyFFTMatvec's results are known for."""
    import numba_fftmatvec as fm

    matrix = fm.Matrix(comm, 31, 6, 20, global_sizes=True)
    matrix.init_mat_doubles()
    found = {}
    for name, (source, target) in {"F": ("input", "output"), "F*": ("output", "input")}.items():
        x, y = matrix.get_vec(source), matrix.get_vec(target)
        x.init_vec_doubles()
        (matrix.matvec if name == "F" else matrix.transpose_matvec)(x, y)
        found[name] = y.gather()
    return found


def phases(matrix: Any, name: str) -> dict[str, int]:
    """Return how often each phase of a product, applied twice, ran on this rank."""
    from numba_fftmatvec.plan.timing import PhaseTimer

    flags, timer = PRODUCTS[name], PhaseTimer(matrix.comm)
    source, target = vector(matrix, flags.source, operands(SHAPES[0])[2][flags.source]), vector(matrix, flags.target)
    for _ in range(2):
        getattr(matrix, flags.method)(source, target, timer=timer)
    return {phase: len(seconds) for phase, seconds in timer.seconds().items()}


def ones_product(matrix: Any, name: str) -> Any:
    """Return the product of the all-ones vector."""
    Nd, Nm, Nt = SHAPES[0]
    blocks = {"col": Nm, "row": Nd}[PRODUCTS[name].source]
    return multiply(matrix, name, np.ones((blocks, Nt)))


def verified(comm: Any, matrix: Any, name: str) -> float:
    """Return the error that the Tester finds in a product of ones."""
    import numba_fftmatvec as fm

    flags = PRODUCTS[name]
    conj = flags.method == "transpose_matvec"
    return float(fm.Tester.check_ones_matvec(comm, matrix, ones_product(matrix, name), conj=conj, full=flags.full))


def rejected(comm: Any, matrix: Any, name: str) -> bool:
    """Return whether the Tester rejects a product with one wrong element, of the last block."""
    import numba_fftmatvec as fm

    flags = PRODUCTS[name]
    out = ones_product(matrix, name)
    values = out.gather()
    values[-1, -1] *= 1 + 1e-9
    out.scatter(values)
    try:
        fm.Tester.check_ones_matvec(comm, matrix, out, conj=flags.method == "transpose_matvec", full=flags.full)
    except fm.errors.VerificationError:
        return True
    return False


def files(comm: Any, setting: Setting) -> dict[str, Any]:
    """Return products of matrices read from directories, and of one that was saved and read again."""
    import numba_fftmatvec as fm

    x = operands(SHAPES[0])[2]
    read = fm.Matrix(comm, str(setting.folder / "F"), aux_path=str(setting.folder / "G"))
    found: dict[Any, Any] = {"checksum": read.get_checksum()}
    for name in ("F", "G"):
        found["read", name] = multiply(read, name, x["col"]).gather()
    Nd, Nm, Nt = SHAPES[0]
    sized = fm.Matrix(comm, Nm, Nd, Nt, global_sizes=True)
    sized.init_mat_from_file(str(setting.folder / "F"))
    sized.init_mat_from_file(str(setting.folder / "G"), aux_mat=True)
    found["sized", "G*"] = multiply(sized, "G*", x["row"]).gather()
    read.save(str(setting.folder / "saved"))
    again = fm.Matrix(comm, str(setting.folder / "saved"))
    found["saved", "F"] = multiply(again, "F", x["col"]).gather()
    return found


def reference(comm: Any, setting: Setting) -> dict[str, Any] | None:
    """Return F of the reference data in double and with a single spectrum, and the PDE solver's observations."""
    if setting.reference is None:
        return None
    import numba_fftmatvec as fm

    found = {}
    for code in ("ddddd", "dssdd"):
        config = fm.MatvecPrecisionConfig.from_code(code)
        matrix = fm.Matrix(comm, str(setting.reference / "test_mat"), p_config=config)
        x, observed, y = (matrix.get_vec(which) for which in ("input", "output", "output"))
        x.init_vec_from_file(str(setting.reference / "test_param_vec_SOTI.h5"))
        observed.init_vec_from_file(str(setting.reference / "test_obs_vec_SOTI.h5"))
        matrix.matvec(x, y)
        found[code] = y.gather()
        found["parameters"], found["observed"] = x.gather(), observed.gather()
    return found
