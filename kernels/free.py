"""Free names of loop nests and formulas, and their bindings."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2s
from pathlib import Path
from typing import Any

import numpy as np

CONSTANTS = int, float, complex, str, bytes, tuple, np.generic
PLAIN = *CONSTANTS, type, type(None)  # their values identify themselves


@dataclass(frozen=True)
class Free:
    """A name that loop nests and formulas of a module leave free: ``formula = Free("formula")`` at module level."""

    name: str


@dataclass(frozen=True)
class Called:
    """A formula that a CPU kernel calls; other formulas are inlined."""

    formula: Callable[..., Any]


@cache
def _globals_of(code: types.CodeType) -> frozenset[str]:
    """Return the names of the globals that code reads, that of nested functions included.

    `co_names` would not do: it also has attributes, such as the ``zeros`` of ``np.zeros``.
    """
    names = frozenset(step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    return names.union(*(_globals_of(inner) for inner in code.co_consts if isinstance(inner, types.CodeType)))


def free_names(function: Any) -> set[str]:
    """Return the free names that a function reads."""
    return {name for name in _globals_of(function.__code__) if isinstance(function.__globals__.get(name), Free)}


def specialise(
    nest: Any, name: str, bindings: Mapping[str, Any], compile_formula: Callable[[Any, bool], Any]
) -> types.FunctionType:
    """Return a copy of a loop nest whose free names are bound.

    Bound names are globals, not a closure: numba's disk cache hashes closures, and no two processes pickle a jitted
    function alike.

    Parameters
    ----------
    nest : function
        The loop nest.
    name : str
        Suffix of the copy's name.
    bindings : mapping
        Values of the free names of the loop nest and of its formulas: constants, intrinsics and formulas.
    compile_formula : callable
        ``compile_formula(function, called)`` compiles a formula whose free names are bound.

    Raises
    ------
    NameError
        A free name has no binding, or a binding is not used.
    """
    bound: dict[str, Any] = {}
    # Functions of one module share their globals: the simulator replaces `cuda` only in those of the loop nest.
    namespaces: dict[int, dict[str, Any]] = {}

    def copy(function: Any) -> types.FunctionType:
        namespace = namespaces.setdefault(id(function.__globals__), dict(function.__globals__))
        for key in sorted(free_names(function)):
            if key not in bindings:
                raise NameError(f"{function.__name__}: expected a binding of the free name {key!r}, found none")
            if key not in bound:
                bound[key] = compiled(bindings[key])
            namespace[key] = bound[key]
        unique = f"{function.__name__}_{name}"
        result = types.FunctionType(function.__code__, namespace, unique, function.__defaults__, function.__closure__)
        result.__qualname__, result.__module__ = unique, function.__module__
        return result

    def compiled(value: Any) -> Any:
        if isinstance(value, Called):
            return compile_formula(copy(value.formula), True)
        return compile_formula(copy(value), False) if isinstance(value, types.FunctionType) else value

    result = copy(nest)
    if unused := sorted(bindings.keys() - bound.keys()):
        raise NameError(f"{nest.__name__}: expected bindings of free names only, found {', '.join(unused)}")
    return result


def identity(value: Any) -> Any:
    """Return a value that identifies a binding in every process.

    It is a formula's code with the constants that it reads. For an intrinsic it is the type, and the sources of its
    module and of those beside it that it imports from. Parameters that distinguish two intrinsics must be bound too.
    """
    if isinstance(value, Called):
        return "called", identity(value.formula)
    if isinstance(value, types.FunctionType):
        return identity(value.__code__), constants(value)
    if isinstance(value, types.CodeType):
        return value.co_code, [identity(constant) for constant in value.co_consts], value.co_names
    if isinstance(value, frozenset):
        return sorted(map(repr, value))
    if isinstance(value, PLAIN):
        return value
    definition = getattr(value, "_defn", None)  # of an intrinsic
    return type(value).__name__, _sources(definition) if definition else None


def constants(function: Any) -> list[tuple[str, Any]]:
    """Return the global constants that a function reads, which the compiler copies into its code."""
    found = {name: function.__globals__.get(name) for name in _globals_of(function.__code__)}
    return sorted((name, value) for name, value in found.items() if isinstance(value, CONSTANTS))


def _sources(function: Any) -> list[str | None]:
    """Return digests of the sources of a function's module, and of modules beside it that it imports from."""
    file = function.__code__.co_filename
    files = {file, *map(_file, function.__globals__.values())}
    return [_source(name) for name in sorted(files) if Path(name).parent == Path(file).parent]


def _file(value: Any) -> str:
    """Return the source file of a function or class, an empty text if it has none."""
    if isinstance(value, types.FunctionType):
        return value.__code__.co_filename
    module = sys.modules.get(str(getattr(value, "__module__", None)))
    return getattr(module, "__file__", None) or ""


@cache
def _source(file: str) -> str | None:
    """Return a digest of a source file, None if it cannot be read."""
    try:
        return blake2s(Path(file).read_bytes(), digest_size=8).hexdigest()
    except OSError:
        return None
