"""Draw the pictures of README.md and docs/tutorial.md: PNG files in docs/images.

``python docs/pictures.py`` runs the pages' blocks of code and docs/gallery/heat_source.py, and needs matplotlib.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shutil
import tempfile
from pathlib import Path

import matplotlib

DOCS = Path(__file__).resolve().parent
PICTURES = {
    "README.md": ["source.png"],
    "docs/tutorial.md": ["leak.png", "town.png"],
    "docs/gallery/heat_source.py": ["heat_source.png"],
}


def main() -> None:
    """Draw the pictures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    matplotlib.use("agg")
    matplotlib.rcParams["savefig.dpi"] = 90
    (DOCS / "images").mkdir(exist_ok=True)
    for name, pictures in PICTURES.items():
        path = DOCS.parent / name
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            if path.suffix == ".py":
                runpy.run_path(str(path), run_name="__main__")
            else:
                code = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
                exec(compile("\n".join(code), name, "exec"), {})
            for picture in pictures:
                shutil.copy(picture, DOCS / "images" / picture)
            os.chdir(DOCS)


if __name__ == "__main__":
    main()
