"""The model of an inversion in a TOML file: the prior of the source and the noise of the data."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FFTMatvecError, FileError, FileFormatError
from ..inversion import AR1, DiagonalPrior, MaternPrior, Noise, Prior, SensorNoise, WhiteNoise, WhitePrior

# Without a model, the noise has this part of the data's root mean square, and the prior the deviation 1.
DEFAULT_NOISE = 0.05


@dataclass(frozen=True)
class _Type:
    """A type of a table: its keys, those that must be given, and the object that they make."""

    make: Callable[..., Any]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


# The keys of all priors, which are read before the type. Each maker takes the number of sources besides the keys.
_COMMON = ("time", "active_steps")
_PRIORS = {
    "white": _Type(lambda size, **keys: WhitePrior(size, **keys), ("deviation",), _COMMON),
    "diagonal": _Type(lambda size, **keys: DiagonalPrior(**keys), ("deviations",), _COMMON),
    "matern": _Type(
        lambda size, **keys: MaternPrior(**keys),
        ("shape", "deviation", "correlation_length"),
        ("spacing", "uniform_variance", *_COMMON),
    ),
}
_TIMES = {
    "none": _Type(lambda: None, ()),
    "ar1": _Type(AR1, ("coefficient",), ("normalised",)),
}
_NOISES = {
    "white": _Type(WhiteNoise, ("deviation",)),
    "sensors": _Type(SensorNoise, ("deviations",)),
}
_TABLES = ("prior", "noise")


def read_text(path: Path) -> str:
    """Return the text of a model's file; raise a FileError or a FileFormatError if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path}: expected a readable TOML file, found: {error.strerror or error}") from error
    except ValueError as error:
        raise FileFormatError(f"{path}: expected TOML in UTF-8, found: {error}") from error


def parse(text: str, path: Path, size: int) -> tuple[Prior, Noise]:
    """Return the prior of `size` sources and the noise of a model's text.

    Raises
    ------
    FileFormatError
        The text is no TOML.
    ArgumentError
        A table or a key is unknown or missing, or a value is outside its domain.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileFormatError(f"{path}: expected TOML, found: {error}") from error
    try:
        _check_names(tables, "", _TABLES, ())
        prior, noise = (_table(tables[name], name) for name in _TABLES)
        return _prior(prior, size), _typed(noise, "noise", _NOISES)
    except (FFTMatvecError, TypeError, ValueError) as error:
        raise ArgumentError(f"{path}: {error}") from error


def default(data: np.ndarray[Any, Any], size: int) -> tuple[Prior, Noise]:
    """Return the prior and the noise without a model."""
    rms = float(np.sqrt(np.mean(np.square(data))))
    if not 0 < rms < np.inf:
        raise ArgumentError(
            f"--model: expected a model, since data of root mean square {rms} give no default for the noise, found none"
        )
    return WhitePrior(size, 1.0), WhiteNoise(DEFAULT_NOISE * rms)


def _prior(table: Mapping[str, Any], size: int) -> Prior:
    """Return the prior of a table, whose key `time` is a name, or a table with a type."""
    keys = dict(table)
    time = keys.pop("time", "none")
    time = {"type": time} if isinstance(time, str) else _table(time, "prior: time")
    common = {"time": _typed(time, "prior: time", _TIMES)}
    if "active_steps" in keys:
        common["active_steps"] = keys.pop("active_steps")
    prior: Prior = _typed(keys, "prior", _PRIORS, size, **common)
    if prior.size != size:
        raise ArgumentError(f"prior: expected the matrix's {size} sources, found {prior.size}")
    return prior


def _typed(table: Mapping[str, Any], where: str, types: Mapping[str, _Type], *first: Any, **common: Any) -> Any:
    """Return the object of a table with a key `type`."""
    name = table.get("type")
    if not isinstance(name, str) or name not in types:
        found = "no such key" if name is None else repr(name)
        raise ArgumentError(f"{where}: type: expected one of {', '.join(types)}, found {found}")
    chosen = types[name]
    keys = {key: value for key, value in table.items() if key != "type"}
    _check_names(keys, f"{where}: ", chosen.required, chosen.optional)
    return chosen.make(*first, **keys, **common)


def _check_names(keys: Mapping[str, Any], where: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Raise an ArgumentError for the first unknown key, or the first one that is missing."""
    expected = ", ".join((*required, *optional)) or "no keys"
    for key in keys:
        if key not in (*required, *optional):
            raise ArgumentError(f"{where}expected {expected}, found the key {key!r}")
    for key in required:
        if key not in keys:
            raise ArgumentError(f"{where}{key}: expected a value, found no such key")


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ArgumentError(f"{where}: expected a table, found {value!r}")
    return value
