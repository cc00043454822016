"""Checks a wheel's file list against the source tree: ``check_wheel.py WHEEL [ROOT]``.

The wheel must contain every module of numba_fftmatvec/ and kernels/ under numba_fftmatvec/, py.typed, and nothing else.
"""

import sys
import zipfile
from pathlib import Path


def expected_files(root: Path) -> set[str]:
    """Return the names of the files in a wheel of the source tree `root`, without its metadata."""
    package = root / "numba_fftmatvec"
    modules = {
        path.relative_to(root).as_posix()
        for path in package.rglob("*.py")
        if not path.is_relative_to(package / "kernels")
    }
    kernels = {f"numba_fftmatvec/{path.relative_to(root).as_posix()}" for path in (root / "kernels").rglob("*.py")}
    return modules | kernels | {"numba_fftmatvec/py.typed"}


def differences(wheel: Path, root: Path) -> list[str]:
    """Return a line for each missing and each unexpected file of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    expected = expected_files(root)
    return [f"missing: {name}" for name in sorted(expected - found)] + [
        f"unexpected: {name}" for name in sorted(found - expected)
    ]


def main(arguments: list[str]) -> int:
    """Print the differences, or the number of files if all are as expected; return the exit status."""
    wheel, root = Path(arguments[0]), Path(arguments[1] if len(arguments) > 1 else ".")
    lines = differences(wheel, root) or [f"{wheel.name}: {len(expected_files(root))} files, as in the source tree"]
    print("\n".join(lines))
    return int(bool(differences(wheel, root)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
