"""Generations of the block rows in a matrix directory: a new matrix has other files, and `meta_adj` names them last.

A directory therefore has the old matrix or the new one at any time, also for a reader that began before the change. The
name of a generation has the process that writes it (see `owner`), so that a later save removes what it left.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import FFTMatvecError
from .atomic import FilePath, file_path, make_directory
from .manifest import manifest_path
from .meta import MatrixMeta, meta_path, read_meta
from .owner import OWNER, owned_by_ended, owner, remove_temporaries

_GENERATION = re.compile(rf"(vec_({OWNER})-[0-9a-f]{{8}}_)(?:[0-9]{{6,}}\.h5|manifest)")


@dataclass(frozen=True)
class Replacement:
    """A matrix that is being written into a directory, and the one that it replaces.

    Parameters
    ----------
    directory : Path
        The directory.
    meta : MatrixMeta
        The metadata of the new matrix, with the prefix of its generation.
    old : MatrixMeta or None
        The metadata of the present matrix, if there is one.
    """

    directory: Path
    meta: MatrixMeta
    old: MatrixMeta | None

    @classmethod
    def begin(cls, directory: FilePath, meta: MatrixMeta) -> Replacement:
        """Create the folders, and remove the files of saves that did not end on this system.

        Raises
        ------
        FileError
            A folder cannot be created.
        """
        directory = file_path(directory)
        make_directory(directory / "binary")
        remove_temporaries(directory / "binary", always=True)
        _remove_unfinished(directory)
        named = replace(meta, prefix=f"vec_{owner()}-{secrets.token_hex(4)}_")
        with suppress(FFTMatvecError):
            return cls(directory, named, read_meta(directory))
        return cls(directory, named, None)

    def like(self, row: int) -> Path | None:
        """Return a file with the permissions of a new block row: the present block row, or the first one."""
        if self.old is None:
            return None
        return self.old.block_row_path(self.directory, row if row < self.old.Nd else 0)

    def end(self) -> None:
        """Remove the files of the replaced matrix after `meta_adj` names the new one. Files that stay do no harm."""
        if self.old is not None and self.old.prefix != self.meta.prefix:
            _remove(self.directory, self.old)

    def abandon(self) -> None:
        """Remove the files of the new matrix, unless `meta_adj` names it already."""
        with suppress(FFTMatvecError):
            if not os.path.lexists(meta_path(self.directory)) or read_meta(self.directory).prefix != self.meta.prefix:
                _remove(self.directory, self.meta)


def _remove(directory: Path, meta: MatrixMeta) -> None:
    """Remove the block rows and the manifest of a matrix, as far as they exist."""
    with suppress(FFTMatvecError, OSError):
        paths = [meta.block_row_path(directory, row) for row in range(meta.Nd)]
        for path in (*paths, manifest_path(directory, meta)):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _remove_unfinished(directory: Path) -> None:
    """Remove the generations of ended processes that `meta_adj` does not name.

    The metadata are read after the search, since a process may name its generation until it ends.
    """
    path = meta_path(directory)
    found = owned_by_ended(path.parent, _GENERATION, 2)
    if not found:
        return
    with suppress(FFTMatvecError):  # of unreadable metadata nobody knows which generation they name
        named = read_meta(directory).prefix if os.path.lexists(path) else None
        for match, file in found:
            if match[1] != named:
                with suppress(OSError):
                    os.unlink(file)
