"""The pages for users of pyFFTMatvec: the table of names is complete and true, and the script runs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from support import reference

DOCS = Path(__file__).resolve().parents[2] / "docs"
IMPORTS = ("import pyFFTMatvec", "import numba_fftmatvec as pyFFTMatvec")
CLASSES = ("Comm", "Matrix", "Vector", "MatvecPrecisionConfig", "Precision", "MatvecConfig", "Tester")
KINDS = {"same", "extended", "differs", "new"}


def table(class_name: str) -> dict[str, str]:
    """Return the page's kind of each name of a class."""
    text = (DOCS / "compatibility.md").read_text()
    (section,) = re.findall(rf"^## `{class_name}`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`[^|]+) \| (\w+) \|", section, re.MULTILINE)
    pairs = [(name, kind) for names, kind in rows for name in re.findall(r"`(\w+)`", names)]
    assert len(dict(pairs)) == len(pairs), "a name is listed twice"
    return {name: kind for name, kind in pairs if name != class_name}


@pytest.fixture(scope="module")
def instances() -> dict[str, Any]:
    """Return an object of each class: some attributes are set by constructors."""
    comm = fm.Comm(backend="cpu")
    matrix = fm.Matrix(comm, 1, 1, 1)
    return {
        "Comm": comm,
        "Matrix": matrix,
        "Vector": matrix.get_vec("input"),
        "MatvecPrecisionConfig": fm.MatvecPrecisionConfig(),
        "Precision": fm.Precision.DOUBLE,
        "MatvecConfig": fm.MatvecConfig(),
        "Tester": fm.Tester(),
    }


def public_names(instance: Any) -> set[str]:
    """Return the public attributes of an object; of an enumeration, its members are those of the class."""
    own = vars(instance) if hasattr(instance, "__dict__") else {}
    return {name for name in (*dir(type(instance)), *own) if not name.startswith("_")}


@pytest.mark.parametrize("class_name", CLASSES)
def test_table_is_complete(instances: dict[str, Any], class_name: str) -> None:
    """Every public name is listed, except the constructors' argument `comm`, which is kept as an attribute."""
    assert public_names(instances[class_name]) - table(class_name).keys() <= {"comm"}


@pytest.mark.parametrize("class_name", CLASSES)
def test_table_is_true(instances: dict[str, Any], class_name: str) -> None:
    """Every name that is listed exists, and what it is compared with is one of four."""
    described = table(class_name)
    absent = object()  # properties may raise, so they are not evaluated
    missing = [name for name in described if inspect.getattr_static(instances[class_name], name, absent) is absent]
    assert missing == []
    assert set(described.values()) <= KINDS


def test_methods_that_could_be_properties(instances: dict[str, Any]) -> None:
    methods = {"Matrix": ("is_initialized", "has_aux_mat", "is_p2q_mat"), "Vector": ("is_initialized",)}
    for class_name, names in methods.items():
        assert all(inspect.ismethod(getattr(instances[class_name], name)) for name in names)


def scripts() -> list[str]:
    """Return the Python blocks of the page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / "migrating.md").read_text(), re.DOTALL)


def test_the_page_names_the_line_that_changes() -> None:
    """Each script has the new import, once; the page prints the old one beside it."""
    before, after = IMPORTS
    assert f"-{before}\n+{after}\n" in (DOCS / "migrating.md").read_text()
    assert [script.splitlines().count(after) for script in scripts()] == [1, 1]


def test_programs_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script prints the norms that the page promises and, beside an original's file, how far that is away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMBA_FFTMATVEC_BACKEND", "cpu")
    promised = [float(number) for number in re.findall(r"# (\d+\.\d+)", scripts()[1])]
    names: dict[str, Any] = {}
    exec(compile(scripts()[1], "migrating.md", "exec"), names)
    np.testing.assert_allclose([float(line) for line in capsys.readouterr().out.splitlines()], promised, rtol=1e-13)
    original = names["y"]
    original *= 1.25
    original.save("pyFFTMatvec.h5")
    exec(compile(scripts()[1], "migrating.md", "exec"), {})
    assert float(capsys.readouterr().out.splitlines()[-1]) == pytest.approx(0.25)


def test_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Conjugate gradients solve the normal equations, which a dense solver checks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMBA_FFTMATVEC_BACKEND", "cpu")
    names: dict[str, Any] = {}
    exec(compile(scripts()[0], "migrating.md", "exec"), names)
    Nd, Nm, Nt = 10, 20, 50
    blocks = reference.padded_doubles((Nd, Nm, Nt))
    dense = np.zeros((Nd, Nt, Nm, Nt))
    for t in range(Nt):
        for s in range(t + 1):
            dense[:, t, :, s] = blocks[:, :, t - s]
    F = dense.reshape(Nd * Nt, Nm * Nt)
    data = F @ np.ones(Nm * Nt)
    solution = np.linalg.solve(F.T @ F + names["alpha"] * np.eye(Nm * Nt), F.T @ data)
    found = names["x"].gather().ravel()
    assert np.linalg.norm(found - solution) <= 1e-6 * np.linalg.norm(solution)
    assert names["relative"] < 0.1
    assert capsys.readouterr().out == f"{names['iterations']} iterations\n"
    assert (tmp_path / "estimate.h5").exists()
