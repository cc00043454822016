"""The command `fftmatvec convert`."""

from __future__ import annotations

import os
import sys
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import cli
from numba_fftmatvec.io import check_path, sources, targets
from numba_fftmatvec.io.image import Image

F = np.random.default_rng(1).standard_normal((3, 4, 5))
CONVERT = ["convert"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, and read single block rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "_PIECE", 8 * 4 * 5)
    return tmp_path


def convert(*arguments: str) -> int:
    return cli.main([*CONVERT, *arguments])


def values_of(directory: str) -> np.ndarray:
    with sources.open_blocks(Path(directory)) as blocks:
        return np.concatenate([values for _, values in blocks.pieces()])


def write_hdf5(path: str, values: Any, name: str = "F", **attributes: Any) -> None:
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=values, chunks=(2, 2, 2)).attrs.update(attributes)


def write_source(path: str, values: np.ndarray) -> None:
    if path.endswith(".npy"):
        np.save(path, values)
    elif path.endswith(".npz"):
        np.savez_compressed(path, times=np.arange(5.0), F=values)
    else:
        write_hdf5(path, values)


@pytest.mark.parametrize("name", ["f.npy", "f.npz", "f.nc", "f.h5"])
@pytest.mark.parametrize("order", ["dmt", "tdm", "mtd"])
def test_there_and_back(name: str, order: str, capsys: pytest.CaptureFixture[str]) -> None:
    axes = ["dmt".index(axis) for axis in order]
    write_source(name, F.transpose(axes))
    assert convert(name, "m", "--order", order) == 0
    assert capsys.readouterr() == (f"m: written from {name}, Nd 3, Nm 4, Nt 5\n", "")
    np.testing.assert_array_equal(values_of("m"), F)
    assert [finding.error for finding in check_path("m")] == [None] * 5
    assert [finding.text for finding in check_path("m")][2:] == ["verified by digests"] * 3
    assert convert("m", f"back-{name}", "--order", order, "--variable", "G" if "np" not in name else "F") == 0
    back = f"back-{name}"
    if name.endswith(".npy"):
        found = np.load(back)
    elif name.endswith(".npz"):
        found = np.load(back)["F"]
    else:
        with h5py.File(back) as file:
            found = file["G"][:]
            assert [dimension[0].name for dimension in file["G"].dims] == [
                f"/{targets.DIMENSIONS[axis]}" for axis in order
            ]
    np.testing.assert_array_equal(found, F.transpose(axes))


def test_the_directory_is_a_matrix() -> None:
    np.save("f.npy", F.astype(">f4"))
    assert convert("f.npy", "m", "--qoi") == 0
    with fm.Comm(backend="cpu") as comm:
        matrix = fm.Matrix(comm, "m", QoI=True)
        x = matrix.get_vec("input")
        x.init_vec_ones()
        y = matrix.get_vec("output")
        matrix.matvec(x, y)
        np.testing.assert_allclose(y.gather(), F.astype("f4").sum(axis=1).cumsum(axis=1), rtol=1e-6, atol=1e-6)


def test_fortran_order_and_integers() -> None:
    integers = np.asfortranarray(np.arange(60).reshape(3, 4, 5))
    np.savez("f.npz", integers)
    assert convert("f.npz", "m") == 0
    np.testing.assert_array_equal(values_of("m"), integers)


def test_packed_variables_are_unpacked(capsys: pytest.CaptureFixture[str]) -> None:
    counts = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    write_hdf5("f.nc", counts, scale_factor=0.5, add_offset=[10.0], _FillValue=np.int16(-1))
    assert convert("f.nc", "m") == 0
    np.testing.assert_array_equal(values_of("m"), counts * 0.5 + 10)
    counts[1, 2, 3] = -1
    write_hdf5("missing.nc", counts, _FillValue=np.int16(-1))
    assert convert("missing.nc", "other") == 2
    where = "missing.nc, F, block row 1, block column 2, time step 3: expected finite values, found nan"
    assert where in capsys.readouterr().err


def test_the_netcdf_library_reads_the_file() -> None:
    """xarray reads it where it is installed; here HDF5's dimension scales are compared with NetCDF's own."""
    np.save("f.npy", F)
    assert convert("f.npy", "m") == 0
    assert convert("m", "f.nc") == 0
    with h5py.File("f.nc") as file:
        assert sorted(file) == ["F", "block_column", "block_row", "time"]
        for axis, name in enumerate(("block_row", "block_column", "time")):
            assert file[name].is_scale and file[name].shape == (F.shape[axis],)
            assert file[name].attrs["NAME"].startswith(b"This is a netCDF dimension but not a netCDF variable.")
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset("f.nc", engine="h5netcdf") as dataset:
        assert dataset["F"].dims == ("block_row", "block_column", "time")
        np.testing.assert_array_equal(dataset["F"].values, F)


@pytest.mark.parametrize("group", [False, True])
def test_zarr(monkeypatch: pytest.MonkeyPatch, group: bool, capsys: pytest.CaptureFixture[str]) -> None:
    Path("f.zarr").mkdir()
    Path("f.zarr/zarr.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert convert("f.zarr", "m") == 2
    assert "expected the package zarr to read a Zarr directory, found" in capsys.readouterr().err
    opened = SimpleNamespace(arrays=lambda: {"F": F, "time": F[0, 0]}.items()) if group else F
    monkeypatch.setitem(sys.modules, "zarr", SimpleNamespace(open=lambda path, mode: opened))
    assert convert("f.zarr", "m", *(["--variable", "F"] if group else [])) == 0
    np.testing.assert_array_equal(values_of("m"), F)


def test_real_zarr() -> None:
    zarr = pytest.importorskip("zarr")
    for version in (2, 3):
        name = f"f{version}.zarr"
        zarr.create_array(name, data=F, chunks=(2, 2, 2), zarr_format=version)
        assert convert(name, f"m{version}") == 0
        np.testing.assert_array_equal(values_of(f"m{version}"), F)


def prepare() -> None:
    np.save("f.npy", F)
    np.save("flat.npy", F[0])
    np.save("complex.npy", F * 1j)
    np.save("objects.npy", np.array([[["a"]]], dtype=object), allow_pickle=True)
    bad = F.copy()
    bad[2, 3, 4] = np.inf
    np.save("bad.npy", bad)
    Path("short.npy").write_bytes(Path("f.npy").read_bytes()[:-8])
    Path("empty.npy").touch()
    np.savez("two.npz", a=F, b=F)
    Path("wrong.npz").write_text("no archive")
    with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("F.npy", Path("f.npy").read_bytes() + bytes(10**6))
    with h5py.File("links.h5", "w") as file:
        file["F"] = h5py.ExternalLink("two.nc", "a")
        layout = h5py.VirtualLayout((3, 4, 5), float)
        layout[:] = h5py.VirtualSource("two.nc", "a", (3, 4, 5))
        file.create_virtual_dataset("G", layout)
    os.mkfifo("pipe.npy")
    Path("classic.nc").write_bytes(b"CDF\x01")
    Path("wrong.nc").write_text("no HDF5")
    write_hdf5("two.nc", F, "a")
    write_hdf5("two.nc", F, "b")
    with h5py.File("unwritten.nc", "w") as file:
        file.create_dataset("F", (4, 4, 4), chunks=(2, 2, 2), dtype=float)[:2] = 1.0
    Path("folder").mkdir()
    Path("folder/file").touch()
    assert convert("f.npy", "m") == 0
    assert convert("f.npy", "n") == 0


BAD = [
    ("absent.npy out", "absent.npy: expected the file or directory to convert, found none"),
    ("f.npy", "expected TARGET, found nothing in its place"),
    ("f.npy out --order xyz", "order: expected a permutation of dmt (block row, block column, time), found 'xyz'"),
    ("f.npy out --variable F", "f.npy: expected no variable, since the file has one array, found 'F'"),
    ("f.npy m", "m: expected no such target, found one; --overwrite replaces it"),
    ("f.npy folder", "folder: expected no such target, found one; --overwrite replaces it"),
    ("f.npy absent/out", "expected a folder that exists for the target, found none at"),
    ("f.npy flat.npy --overwrite", "f.npy: expected a matrix directory, since the target is a file"),
    ("f.npy wrong.nc --overwrite", "f.npy: expected a matrix directory, since the target is a file"),
    ("m out.mat", "TARGET: expected a name that ends in .npy, .npz, .nc, .nc4, .h5, .hdf5, found 'out.mat'"),
    ("m f.npy", "f.npy: expected no such target, found one; --overwrite replaces it"),
    ("m out.npy --qoi", "--qoi: expected with a matrix directory as the target, found a file"),
    ("m out.npy --order dm", "order: expected a permutation of dmt"),
    ("folder out", "folder: expected a matrix directory, with binary/meta_adj, or a Zarr directory, found neither"),
    ("folder/file out", "folder/file: expected .npy, .npz, .nc, .nc4, .h5, .hdf5, a Zarr directory or a matrix"),
    ("flat.npy out", "flat.npy: expected three axes (d, m, t), none of length 0, found (4, 5)"),
    ("complex.npy out", "complex.npy: expected real numbers, found dtype complex128"),
    ("objects.npy out", "objects.npy: expected a file of the format that its name has, found"),
    ("bad.npy out", "bad.npy, block row 2, block column 3, time step 4: expected finite values, found inf"),
    ("bad.npy n --overwrite", "bad.npy, block row 2, block column 3, time step 4: expected finite values, found inf"),
    ("short.npy out", "short.npy: expected a file of the format that its name has, found"),
    ("empty.npy out", "empty.npy: expected a file of the format that its name has, found"),
    ("wrong.npz out", "wrong.npz: expected a file of the format that its name has, found"),
    ("bomb.npz out", "bomb.npz: expected a file of the format that its name has, found: 1000608 bytes of F instead of"),
    ("links.h5 out", "links.h5: expected one variable with three axes, or its name, found no variable"),
    ("links.h5 out --variable F", "links.h5: expected the variable 'F', found no variable"),
    ("pipe.npy out", "pipe.npy: expected a regular file, found a special file"),
    ("two.npz out", "two.npz: expected one variable with three axes, or its name, found a (3, 4, 5), b (3, 4, 5)"),
    ("two.npz out --variable c", "two.npz: expected the variable 'c', found a (3, 4, 5), b (3, 4, 5)"),
    ("classic.nc out", "classic.nc: expected NetCDF-4, found classic NetCDF; convert it with 'nccopy -k nc4'"),
    ("wrong.nc out", "wrong.nc: cannot read it as an HDF5 file"),
    ("two.nc out", "two.nc: expected one variable with three axes, or its name, found a (3, 4, 5), b (3, 4, 5)"),
    ("unwritten.nc out", "unwritten.nc, F: expected all values, found some that were never written"),
]


def contents() -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


def test_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    prepare()
    capsys.readouterr()
    before = contents()
    for line, message in BAD:
        assert convert(*line.split()) == 2, line
        output = capsys.readouterr()
        assert output.out == "" and output.err.count("\n") == 1, (line, output)
        assert message in output.err
        assert contents() == before, line


def test_a_target_is_replaced_on_request() -> None:
    prepare()
    np.save("g.npy", F[:2] + 1)
    assert convert("g.npy", "m", "--overwrite") == 0
    np.testing.assert_array_equal(values_of("m"), F[:2] + 1)
    assert len(list(Path("m/binary").iterdir())) == 4
    for name in ("f.npy", "two.npz", "two.nc"):
        assert convert("m", name, "--overwrite") == 0
        assert convert(name, f"again-{name.replace('.', '-')}") == 0
    np.testing.assert_array_equal(values_of("again-two-nc"), F[:2] + 1)


@pytest.mark.parametrize("target", ["out", "m", "out.npy", "out.npz", "out.nc"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str, error: BaseException
) -> None:
    prepare()
    capsys.readouterr()
    before = contents()
    matrix = target in ("out", "m")

    def fail(*arguments: object) -> None:
        raise error

    if matrix:
        monkeypatch.setattr("numba_fftmatvec.io.values.write_at", fail)
    else:
        monkeypatch.setattr(Image, "write", fail)
    status = convert("f.npy" if matrix else "n", target, "--overwrite")
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 2)
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert contents() == before


def test_a_damaged_matrix_is_not_converted(capsys: pytest.CaptureFixture[str]) -> None:
    prepare()
    row = next(path for path in Path("m/binary").iterdir() if path.name.endswith("000001.h5"))
    with h5py.File(row, "a") as file:
        file["vec"][7] += 1
    assert convert("m", "out.nc") == 2
    assert "expected values of the SHA-256" in capsys.readouterr().err
    assert not Path("out.nc").exists()


@pytest.mark.parametrize(("order", "name"), [("dmt", "back.npy"), ("tdm", "back.nc"), ("dmt", "back.npz")])
def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, order: str, name: str) -> None:
    """24 MB of blocks pass through pieces of 1 MB."""
    monkeypatch.setattr(sources, "_PIECE", 10**6)
    sizes = dict(zip("dmt", (48, 50, 1250), strict=True))
    values = np.lib.format.open_memmap("f.npy", "w+", np.float64, tuple(sizes[axis] for axis in order))
    values[...] = 1.0
    values.flush()
    tracemalloc.start()
    try:
        assert convert("f.npy", "m", "--order", order) == 0
        assert convert("m", name, "--order", order) == 0
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert Path(name).stat().st_size >= 24e6
