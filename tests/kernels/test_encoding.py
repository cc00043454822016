"""The encoders of the stored formats and their inverse, on every target: rounding, scales, and non-finite values."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from numba_fftmatvec.kernels import encoding
from numba_fftmatvec.kernels.encoding import ENCODER_THREADS
from numba_fftmatvec.kernels.formats import COMPLEX64, COMPLEX128, FIXED16, FIXED32, FORMATS, RUN, Format
from support.machines import SIMULATED

FIXED = [FIXED32, FIXED16]
FREQUENCIES = [1, 2, 31, 63, 64, 65, 130]
SMALLEST = 2.0**-1074
FILL = 7  # the initial value of memory that must not be written


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the simulator each CUDA thread is a Python thread."""
    if SIMULATED:
        monkeypatch.setattr(encoding, "THREADS", 8)
        monkeypatch.setattr(encoding, "ENCODER_THREADS", (4, 2))


def names(value: object) -> str | None:
    return value.name if isinstance(value, Format) else None


def transforms_of(rows: int, frequencies: int, seed: int = 0) -> np.ndarray:
    """Return (rows, 2 width) parts as the set-up makes them, with zeros in the padding of runs."""
    parts = np.zeros((rows, 2 * COMPLEX128.pitch(frequencies)))
    values = np.random.default_rng([rows, frequencies, seed]).standard_normal((rows, 2 * frequencies))
    parts[:, : 2 * frequencies] = values
    return parts


def encoded(machine, format: Format, transforms: np.ndarray, frequencies: int, factor: float = 1.0):
    """Return the arrays that an encoder makes of rows of transforms."""
    values, scales = (shape[1:] for shape in format.shapes(1, len(transforms), frequencies))
    launch = encoding.encode_launcher(machine.target, format, factor)
    arrays = machine.put(np.full(values, FILL, format.part)), machine.put(np.full(scales, np.pi))
    launch(*arrays, machine.put(transforms))
    return tuple(map(machine.get, arrays))


def decoded(machine, format: Format, values: np.ndarray, scales: np.ndarray, width: int) -> np.ndarray:
    """Return the (rows, width) parts that a decoder makes."""
    launch = encoding.decode_launcher(machine.target, format)
    return machine.run(launch, np.full((len(values), width), np.nan), values, scales)


def steps(scales: np.ndarray, width: int) -> np.ndarray:
    """Return each part's scale."""
    return np.repeat(scales, 2 * RUN, axis=1)[:, :width]


@pytest.mark.parametrize("format", FIXED, ids=names)
@pytest.mark.parametrize("frequencies", FREQUENCIES)
def test_fixed_point_is_off_by_half_a_step(machine, format, frequencies) -> None:
    """The step is the run's largest part over the largest count, so both bounds are known before encoding."""
    transforms, factor = transforms_of(3, frequencies), 1 / 3
    values, scales = encoded(machine, format, transforms, frequencies, factor)
    exact = transforms * factor
    found = decoded(machine, format, values, scales, transforms.shape[1])
    step = steps(scales, transforms.shape[1])
    # The quotient, of up to 2^31 steps, and the product that decodes it have a relative rounding of 2^-53 each.
    assert (abs(found - exact) <= 0.5 * step * (1 + 1e-6)).all()
    for run in range(scales.shape[1]):
        largest = abs(exact[:, 2 * RUN * run : 2 * RUN * (run + 1)]).max(axis=1)
        np.testing.assert_allclose(scales[:, run], largest / format.largest, rtol=4e-16)
    assert abs(values[:, : transforms.shape[1]].astype(np.int64)).max() == format.largest  # the whole range is used


@pytest.mark.parametrize("format", FIXED, ids=names)
@pytest.mark.parametrize("weak", ["row", "run"])
def test_weak_values_lose_nothing_to_strong_ones(machine, format, weak) -> None:
    transforms = transforms_of(2, 2 * RUN)
    exact = transforms.copy()
    exact[(1, slice(None)) if weak == "row" else (slice(None), slice(2 * RUN, None))] *= 1e-9
    found = decoded(machine, format, *encoded(machine, format, exact, 2 * RUN), exact.shape[1])
    for row, run in product(range(2), range(2)):
        part = row, slice(2 * RUN * run, 2 * RUN * (run + 1))
        assert abs(found[part] - exact[part]).max() <= 0.5001 * abs(exact[part]).max() / format.largest


@pytest.mark.parametrize("format", FIXED, ids=names)
def test_zeros_stay_zeros(machine, format) -> None:
    transforms = transforms_of(2, 2 * RUN)
    transforms[0] = 0
    transforms[1, : 2 * RUN] = -0.0
    values, scales = encoded(machine, format, transforms, 2 * RUN)
    assert (values[0] == 0).all() and (values[1, : 2 * RUN] == 0).all()
    assert (scales == 0).tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("format", FIXED, ids=names)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, RUN, 2 * RUN - 1])
def test_what_is_not_finite_leaves_a_scale_that_is_not(machine, format, bad, place) -> None:
    """A value that is not finite affects its own run only, at any position."""
    transforms = transforms_of(2, 2 * RUN)
    expected = encoded(machine, format, transforms, 2 * RUN)
    transforms[1, place] = bad
    values, scales = encoded(machine, format, transforms, 2 * RUN)
    assert np.isfinite(scales).tolist() == [[True, True], [False, True]]
    np.testing.assert_array_equal(values[0], expected[0][0])
    np.testing.assert_array_equal(values[1, 2 * RUN :], expected[0][1, 2 * RUN :])


@pytest.mark.parametrize("format", FIXED, ids=names)
@pytest.mark.parametrize("largest", [SMALLEST, 1e-320, 45_873 * SMALLEST, 65_535 * SMALLEST, 1e-310, 2.3e-308])
def test_subnormal_values_saturate(machine, format, largest) -> None:
    """Their scales are rounded to few bits or to zero. Values that do not fit are clipped and do not wrap around."""
    transforms = np.zeros((1, 2 * RUN))
    transforms[0, :4] = largest, -largest, largest / 2, -largest / 4
    values, scales = encoded(machine, format, transforms, RUN)
    assert np.isfinite(scales).all()
    assert abs(values.astype(np.int64)).max() <= format.largest
    found = decoded(machine, format, values, scales, transforms.shape[1])
    assert (found * transforms >= 0).all()
    # A scale is off by at most half the smallest subnormal number, and counts are at most `largest`.
    assert (abs(found - transforms) <= 0.5 * scales[0, 0] + format.largest / 2 * SMALLEST + SMALLEST).all()


@pytest.mark.parametrize("format", [COMPLEX64, COMPLEX128], ids=names)
@pytest.mark.parametrize("frequencies", FREQUENCIES)
def test_floating_formats_round_once(machine, format, frequencies) -> None:
    transforms = transforms_of(3, frequencies)
    values, scales = encoded(machine, format, transforms, frequencies, 0.5)
    np.testing.assert_array_equal(values[:, : transforms.shape[1]], (transforms / 2).astype(format.part))
    found = decoded(machine, format, values, scales, transforms.shape[1])
    np.testing.assert_array_equal(found, (transforms / 2).astype(format.part).astype(np.float64))


@pytest.mark.parametrize("format", FORMATS, ids=names)
def test_parts_beyond_the_shorter_rows_are_left_alone(machine, format) -> None:
    transforms = transforms_of(2, 9)
    values, scales = encoded(machine, format, transforms, 9)
    assert (values[:, transforms.shape[1] :] == FILL).all()
    found = decoded(machine, format, values, scales, values.shape[1] + 4)
    assert np.isnan(found[:, values.shape[1] :]).all()
    assert np.isfinite(found[:, : transforms.shape[1]]).all()


@pytest.mark.parametrize("format", FORMATS, ids=names)
@pytest.mark.parametrize("width", [2, 13])
def test_a_part_of_a_row_is_decoded(machine, format, width) -> None:
    values, scales = encoded(machine, format, transforms_of(2, 65), 65)
    whole = decoded(machine, format, values, scales, values.shape[1])
    np.testing.assert_array_equal(decoded(machine, format, values, scales, width), whole[:, :width])


def test_the_encoder_s_threads_divide_a_run() -> None:
    lanes, _ = ENCODER_THREADS
    assert RUN % lanes == 0 and lanes & (lanes - 1) == 0


@pytest.mark.parametrize("format", FORMATS, ids=names)
@pytest.mark.parametrize("frequencies", FREQUENCIES)
def test_sizes(format, frequencies) -> None:
    rows, cols = 3, 5
    values, scales = format.shapes(rows, cols, frequencies)
    pitch = values[2] // 2
    assert values == (rows, cols, 2 * pitch)
    assert values[2] * format.part.itemsize % 128 == 0
    assert 0 <= (pitch - frequencies) * 2 * format.part.itemsize < 128
    size = np.prod(values) * format.part.itemsize
    if format.is_fixed:
        assert scales == (rows, cols, -(-frequencies // RUN))
        assert pitch <= scales[2] * RUN  # the padding of a run also has a scale
        size += 8 * np.prod(scales)
    else:
        assert scales == (1, 1, 1)
    assert format.nbytes(rows, cols, frequencies) == size


@pytest.mark.parametrize("format", FIXED, ids=names)
def test_launchers_refuse_what_does_not_fit(machine, format) -> None:
    values, scales = machine.put(np.zeros((2, 64), format.part)), machine.put(np.zeros((2, 1)))
    transforms, shorter = machine.put(np.zeros((2, 64))), machine.put(np.zeros((3, 64)))
    encode, decode = (
        encoding.encode_launcher(machine.target, format, 1.0),
        encoding.decode_launcher(machine.target, format),
    )
    with pytest.raises(TypeError, match="stored parts: expected dtype"):
        encode(transforms, scales, transforms)
    with pytest.raises(ValueError, match="scales: expected shape"):
        encode(values, machine.put(np.zeros((3, 1))), transforms)
    with pytest.raises(ValueError, match="transforms: expected shape"):
        decode(shorter, values, scales)
    with pytest.raises(TypeError, match="transforms: expected dtype float64"):
        decode(machine.put(np.zeros((2, 64), np.float32)), values, scales)
