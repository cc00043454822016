"""Operators of every kind and their dense references, which NumPy alone makes, and the runs on process grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

import numba_fftmatvec as fm

Array = NDArray[Any]

# (Nd, Nm, Nt): neither 2 nor 3 divides Nd or Nm, so the ranks' shares differ, and a stack's from those of its parts.
SIZES = Nd, Nm, Nt = 5, 7, 6
CODES = {"F": "ddddd", "G": "ddddd", "S": "dssdd", "H": "ddhdd"}
COUNT = 3


class Leaves(NamedTuple):
    """The values of the operators that expressions consist of."""

    matrices: dict[str, Array]
    weights: dict[str, Array]
    responses: dict[str, Array]


def leaves() -> Leaves:
    """Return the values, the same on every rank; they have both signs, so that sums cancel."""
    random = np.random.default_rng(SIZES)
    return Leaves(
        {name: random.standard_normal((Nd, Nm, Nt)) for name in CODES},
        {"D": random.standard_normal((Nm, Nt)), "W": random.standard_normal((Nd, Nt))},
        {"C": random.standard_normal((Nm, Nt)), "R": 0.8 ** np.arange(Nt)},
    )


def toeplitz(response: Array) -> Array:
    """Return the lower-triangular Toeplitz matrix with the first column `response`."""
    lags = np.subtract.outer(np.arange(len(response)), np.arange(len(response)))
    return np.where(lags >= 0, response[lags], 0.0)


def block_diagonal(blocks: list[Array]) -> Array:
    size = len(blocks[0])
    result = np.zeros((size * len(blocks), size * len(blocks)))
    for i, block in enumerate(blocks):
        result[i * size : (i + 1) * size, i * size : (i + 1) * size] = block
    return result


def dense_leaves() -> dict[str, Array]:
    """Return the dense matrix of each leaf, in long double."""
    values = leaves()
    found = {
        name: np.block([[toeplitz(block) for block in row] for row in matrix])
        for name, matrix in values.matrices.items()
    }
    found |= {name: np.diag(weights.ravel()) for name, weights in values.weights.items()}
    found["C"] = block_diagonal([toeplitz(response) for response in values.responses["C"]])
    found["R"] = block_diagonal([toeplitz(values.responses["R"])] * Nd)
    found |= {"I": np.eye(Nm * Nt), "J": np.eye(Nd * Nt)}
    return {name: matrix.astype(np.longdouble) for name, matrix in found.items()}


def built_leaves(comm: fm.Comm) -> dict[str, fm.LinearOperator]:
    values = leaves()
    found: dict[str, fm.LinearOperator] = {}
    for name, matrix in values.matrices.items():
        found[name] = fm.Matrix.from_array(comm, matrix, fm.MatvecPrecisionConfig.from_code(CODES[name]))
    col, row = found["F"].domain, found["F"].range
    for name, weights in values.weights.items():
        vector = fm.Vector.from_layout(comm, {"D": col, "W": row}[name])
        vector.scatter(weights)
        found[name] = fm.Diagonal(vector)
    found["C"] = fm.CausalFilter(comm, col, values.responses["C"])
    found["R"] = fm.CausalFilter(comm, row, values.responses["R"])
    found |= {"I": fm.Identity(comm, col), "J": fm.Identity(comm, row)}
    return found


def built_stack(parts: list[fm.LinearOperator]) -> fm.LinearOperator:
    return fm.VerticalStack(parts)


# Expressions of leaves; `stack` is VerticalStack or numpy.vstack.
Expression = Callable[[Any, Callable[..., Any]], Any]
EXPRESSIONS: dict[str, Expression] = {
    **{name: lambda o, stack, name=name: o[name] for name in (*CODES, "D", "W", "C", "R", "I", "J")},
    "A.T": lambda o, stack: o["F"].T,
    "A + B": lambda o, stack: o["F"] + o["G"],
    "A - B": lambda o, stack: o["F"] - o["G"],
    "-A": lambda o, stack: -o["F"],
    "a * A": lambda o, stack: np.float64(0.3) * o["F"],
    "A * a": lambda o, stack: o["F"] * -2,
    "A / a": lambda o, stack: o["F"] / 3,
    "A + A": lambda o, stack: o["F"] + o["F"],
    "A - A": lambda o, stack: o["F"] - o["F"],
    "mixed precision": lambda o, stack: o["F"] - o["S"] + 2.0 * o["H"],
    "A @ A": lambda o, stack: o["C"] @ o["C"],
    "A @ A @ A @ A": lambda o, stack: o["C"] @ o["C"] @ o["C"] @ o["C"],
    "F F*": lambda o, stack: o["F"] @ o["F"].T,
    "Gauss-Newton": lambda o, stack: o["F"].T @ o["W"] @ o["W"] @ o["F"] + 0.1 * o["I"],
    "filtered": lambda o, stack: o["R"] @ (o["F"] @ o["C"] - o["G"] / 2) @ o["D"],
    "(A B).T": lambda o, stack: (o["R"] @ o["F"] @ o["C"]).T,
    "(A + B).T": lambda o, stack: (o["F"] + 2 * (o["G"] @ o["D"])).T,
    "square of a sum": lambda o, stack: (o["C"] + o["D"]) @ (o["C"] + o["D"]),
    "stack": lambda o, stack: stack([o["F"], o["G"]]),
    "stack of spaces": lambda o, stack: stack([o["F"], 0.1 * o["I"], o["G"] @ o["C"]]),
    "stack of col": lambda o, stack: stack([o["D"], o["C"]]),
    "stack of one": lambda o, stack: stack([o["F"]]),
    "stack.T": lambda o, stack: stack([o["I"], o["F"], o["F"]]).T,
    "normal equations": lambda o, stack: stack([o["F"], o["D"]]).T @ stack([o["F"], o["D"]]),
    "stack of stacks": lambda o, stack: stack([stack([o["F"], o["D"]]), stack([o["G"]]) - o["S"]]),
}


def references() -> dict[str, Array]:
    """Return the dense matrix of each expression, in long double."""
    leaves_ = dense_leaves()
    return {name: expression(leaves_, np.vstack) for name, expression in EXPRESSIONS.items()}


def on_grid(setting: tuple[tuple[int, int], str]) -> dict[str, dict[str, Any]]:
    """Return what this rank finds for each expression on a grid."""
    grid, backend = setting
    with fm.Comm(MPI.COMM_WORLD, *grid, backend=backend, collectives="mpi") as comm:
        operators = built_leaves(comm)
        return {name: facts(expression(operators, built_stack)) for name, expression in EXPRESSIONS.items()}


def facts(operator: fm.LinearOperator) -> dict[str, Any]:
    blocks, steps = operator.domain.shape
    several = fm.Vector.from_layout(
        operator.comm, operator.comm.axis(operator.domain.space).layout(blocks, steps, COUNT)
    )
    several.scatter(np.random.default_rng(1).standard_normal(several.shape))
    first = (operator @ several).gather()
    return {
        "shape": operator.shape,
        "roundoff": operator.unit_roundoff,
        "accuracy": operator.accuracy(),
        "dense": operator.todense(),
        "adjoint": operator.T.todense(),
        "twice adjoint": (operator.T.T @ several).gather(),
        "several": first,
        "repeats": np.array_equal(first, (operator @ several).gather()),
        "dot test": fm.dot_test(operator),
        "dot test of several": fm.dot_test(operator, several, operator @ several),
    }
