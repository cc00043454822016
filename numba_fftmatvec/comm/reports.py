"""Errors as messages: the report of one rank's error, and its reconstruction on the other ranks.

A report contains names and plain values, never a pickle, so that it cannot run code. Types are looked up among Python's
built-in exceptions and those of `errors`.
"""

from __future__ import annotations

import builtins
import json
from contextlib import suppress
from typing import Any

from .. import errors
from ..errors import RemoteError

LONGEST = 10_000  # characters of a string in a report
_PLAIN = (str, int, float, bool, type(None))
_MODULES = {"builtins": builtins, errors.__name__: errors}
_OS_ATTRIBUTES = ("errno", "strerror", "filename", "filename2")
_OUT_OF_MEMORY = b'{"module": "builtins", "name": "MemoryError", "message": "", "args": []}'


def encode(error: BaseException) -> bytes:
    """Return the report of an error, whatever the error's methods do."""
    try:
        kind = type(error)
        arguments = list(error.args)
        report: dict[str, Any] = {"module": kind.__module__, "name": kind.__qualname__, "message": message_of(error)}
        if all(isinstance(value, _PLAIN) for value in arguments):
            report["args"] = [_bounded(value) for value in arguments]
        if isinstance(error, OSError):
            found = {name: getattr(error, name) for name in _OS_ATTRIBUTES}
            report["os"] = {name: _bounded(value) for name, value in found.items() if isinstance(value, _PLAIN)}
        return json.dumps(report).encode()
    except Exception:  # such as a MemoryError: the other ranks must not wait
        return _OUT_OF_MEMORY


def decode(report: bytes | bytearray) -> BaseException:
    """Return the error of a report: one of the same type and message, else a RemoteError with both."""
    content = json.loads(report)
    message = content["message"]
    with suppress(Exception):
        kind = getattr(_MODULES[content["module"]], content["name"])
        if issubclass(kind, BaseException):
            for arguments in (content.get("args"), [message]):
                if arguments is not None and (error := _rebuilt(kind, arguments, content.get("os", {}), message)):
                    return error
    return RemoteError(f"{content['name']}: {message}")


def message_of(error: BaseException) -> str:
    """Return an error's message; for an error whose ``str`` raises, the types of both."""
    try:
        return str(_bounded(str(error)))
    except Exception as failure:
        return f"{type(error).__name__} without a message: its str raises {type(failure).__name__}"


def _rebuilt(
    kind: type[BaseException], arguments: list[Any], attributes: dict[str, Any], message: str
) -> BaseException | None:
    """Return an error of a type if it has the message, else None."""
    with suppress(Exception):
        error = kind(*arguments)
        for name, value in attributes.items():
            if getattr(error, name) != value:
                setattr(error, name, value)
        if str(error) == message:
            return error
    return None


def _bounded(value: Any) -> Any:
    """Return a plain value; a long string is cut."""
    return f"{value[:LONGEST]} ..." if isinstance(value, str) and len(value) > LONGEST else value
