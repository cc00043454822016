"""Checks of the paths on a command line, before any work."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import FileError
from ..io.meta import meta_path


def check_matrix_directory(path: Path) -> None:
    """Raise a FileError unless a path is a directory with the metadata of a matrix."""
    if os.path.lexists(meta_path(path)):
        return
    kinds = ((path.is_dir(), "a directory without it"), (os.path.lexists(path), "a file"), (True, "nothing there"))
    found = next(text for holds, text in kinds if holds)
    raise FileError(
        f"{path}: expected a matrix directory, with the file binary/meta_adj, found {found}; "
        f"give the folder that contains binary/, or make one with 'fftmatvec convert' or Matrix.save"
    )
