"""The architecture as a table: which folder may import which, and who may import a library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "numba_fftmatvec"
KERNELS = PACKAGE.parent / "kernels"
GROUND = {"arguments", "errors", "layout", "precision", "products", "progress"}
LOW = GROUND | {"backends", "kernels"}

# Each folder and file, from bottom to top, with those that it may import. Nobody imports `cli`.
MAY_IMPORT = {
    "errors": set(),
    "progress": set(),
    "arguments": {"errors"},
    "layout": {"arguments", "errors"},
    "products": {"errors", "layout"},
    "plotting": {"arguments", "errors"},
    "precision": {"errors", "kernels.formats"},
    "kernels": set(),
    "backends": GROUND | {"kernels"},
    "io": {"arguments", "errors", "layout"},
    "comm": GROUND | {"backends"},
    "spectrum": LOW | {"io"},
    "vector": LOW | {"io", "comm"},
    "plan": LOW | {"comm", "spectrum"},
    "operators": GROUND | {"comm", "vector"},
    "matrix": LOW | {"io", "comm", "spectrum", "vector", "plan", "operators"},
    "solvers": GROUND | {"io", "comm", "vector", "operators"},
    "inversion": LOW | {"io", "comm", "vector", "operators", "matrix"},
    "testing": GROUND | {"comm", "vector", "matrix"},
    "tuning": GROUND | {"comm", "vector", "plan", "matrix"},
    "torch": GROUND | {"backends", "comm", "vector", "matrix"},
    "cli": LOW
    | {"io", "spectrum", "comm", "vector", "plan", "operators", "matrix", "testing", "tuning"}
    | {"inversion", "plotting"},
}
ONLY_IN = {
    "mpi4py": {"comm"},
    "h5py": {"io"},
    "zarr": {"io.sources"},
    "cupy": {"backends.cuda", "comm.nccl"},
    "cupyx": {"backends.cuda", "operators.adapters.cupy"},
    "torch": {"torch", "vector.tensors"},
    "rich": {"cli", "progress"},
    "matplotlib": {"plotting"},
    "numba": {"kernels", "backends.cpu"},
    "scipy": {"backends.cpu", "inversion", "operators.adapters.scipy"},
    "pylops": {"operators.adapters.pylops"},
    "pylops_mpi": {"operators.adapters.pylops_mpi"},
    "petsc4py": {"operators.adapters.petsc"},
    "cuqi": {"operators.adapters.cuqi"},
    "llvmlite": {"kernels"},
    "nvmath": {"backends.cuda"},
}


def modules() -> Iterator[tuple[str, list[str]]]:
    """Yield each module, by its name below the package, and the full names that it imports."""
    folders = {PACKAGE: "", KERNELS: "kernels"}
    for folder, name in folders.items():
        for path in folder.rglob("*.py"):
            if folder is PACKAGE and path.is_relative_to(PACKAGE / "kernels"):
                continue
            parts = [*filter(None, [name]), *path.relative_to(folder).with_suffix("").parts]
            package = parts[:-1]
            found = []
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    base = [] if not node.level else ["numba_fftmatvec", *package[: len(package) + 1 - node.level]]
                    base += [node.module] if node.module else []
                    found += [".".join(base)] if node.module else [".".join([*base, a.name]) for a in node.names]
            yield ".".join(part for part in parts if part != "__init__"), found


MODULES = dict(modules())


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downward(module: str) -> None:
    room = module.partition(".")[0]
    for target in MODULES[module]:
        library, _, inside = target.partition(".")
        if library == "numba_fftmatvec":
            if room in MAY_IMPORT and inside.partition(".")[0] != room:
                assert within(inside, MAY_IMPORT[room]), f"{module} imports {inside}"
        elif library in ONLY_IN:
            assert within(module, ONLY_IN[library]), f"{module} imports {library}"


def test_the_table_is_complete_and_has_no_circle() -> None:
    rooms = {module.partition(".")[0] for module in MODULES} - {"", "__main__"}
    assert rooms == set(MAY_IMPORT)
    below: set[str] = set()
    for room, targets in MAY_IMPORT.items():
        assert {target.partition(".")[0] for target in targets} <= below | {"kernels"}
        below.add(room)


def test_modules_have_no_circle() -> None:
    ours = "numba_fftmatvec."
    edges = {
        module: {target.removeprefix(ours) for target in targets if target.startswith(ours)} & MODULES.keys() - {module}
        for module, targets in MODULES.items()
    }
    while leaves := [module for module, targets in edges.items() if not targets & edges.keys()]:
        for leaf in leaves:
            del edges[leaf]
    assert not edges
