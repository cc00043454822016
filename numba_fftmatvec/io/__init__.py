"""Files: the metadata of a matrix directory, its block rows, and vectors. This package does not use MPI."""

from .archive import Archive, archive_writer, open_archive
from .atomic import FilePath, file_path
from .check import Finding, check_path
from .generations import Replacement
from .hdf5 import (
    VectorWriter,
    block_row_writer,
    check_block_row,
    check_vector,
    read_block_row,
    read_vector,
    vector_writer,
    write_block_row,
)
from .manifest import manifest_path, write_manifest
from .meta import MatrixMeta, read_meta, write_meta

__all__ = [
    "Archive",
    "FilePath",
    "Finding",
    "MatrixMeta",
    "Replacement",
    "VectorWriter",
    "archive_writer",
    "block_row_writer",
    "check_block_row",
    "check_path",
    "check_vector",
    "file_path",
    "manifest_path",
    "open_archive",
    "read_block_row",
    "read_meta",
    "read_vector",
    "vector_writer",
    "write_block_row",
    "write_manifest",
    "write_meta",
]
