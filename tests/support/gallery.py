"""The flagship of the gallery on several ranks."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

GALLERY = Path(__file__).resolve().parents[2] / "docs" / "gallery"


def tsunami(setting: tuple[Path, list[str]]) -> dict[str, Any]:
    """Run the example in a folder, with the arguments of its command line; return its figures."""
    folder, arguments = setting
    os.chdir(folder)
    sys.path.insert(0, os.fspath(GALLERY))  # as Python does for a script
    figures: dict[str, Any] = runpy.run_path(os.fspath(GALLERY / "tsunami.py"))["main"](arguments)
    return figures
