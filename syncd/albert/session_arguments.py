"""Checks the arguments of a session when it is made, so that a wrong one is named there and not by a later request."""

from __future__ import annotations

import inspect
import math
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import SecretStr

from syncd.albert.errors import InvalidRequestError

MOST_BITS = 64
"""Bits of an integer that a message shows: more digits help no reader."""


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value) and value > 0
    except OverflowError:  # an int that no float can hold
        return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_headers(value: object) -> bool:
    pairs = value.items() if isinstance(value, Mapping) else ((None, None),)
    return all(isinstance(part, str) for pair in pairs for part in pair)


def _is_text_source(value: object) -> bool:
    return isinstance(value, str | SecretStr) or (callable(value) and not inspect.iscoroutinefunction(value))


_TEXT_SOURCE = "text, a SecretStr, or a function (not a coroutine function) that returns text"
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "base_url": (lambda value: isinstance(value, str), "text, such as 'https://app.albertinvent.com'"),
    "token": (_is_text_source, _TEXT_SOURCE),
    "id": (_is_text_source, _TEXT_SOURCE),
    "secret": (_is_text_source, _TEXT_SOURCE),
    "headers": (_is_headers, "a mapping of text to text"),
    "timeout": (_is_number, "a number of seconds above 0"),
    "max_response_bytes": (_is_count, "a number of bytes above 0"),
    "max_connections": (_is_count, "a number above 0"),
    "before_request": (callable, "a coroutine function without arguments"),
    "after_request": (callable, "a function of the method, the outcome and the seconds"),
    "check_token": (callable, "a coroutine function of the token"),
    "verify": (
        lambda value: isinstance(value, ssl.SSLContext),
        "an ssl.SSLContext; a file of CA certificates is the argument ca_file",
    ),
    "proxy": (lambda value: isinstance(value, str | SecretStr), "text, such as 'http://proxy.example.com:3128'"),
    "ca_file": (lambda value: isinstance(value, str | os.PathLike), "the path of a file"),
}
"""For each argument: the check of a value, and a description of the accepted values."""
_REQUIRED = frozenset({"base_url", "id", "secret", "timeout", "max_response_bytes", "max_connections"})
"""The arguments for which None is not accepted."""


def _shown(value: object) -> str:
    """Return a number, or the type of anything else; Python does not write an int of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return f"an integer of {value.bit_length()} bits"
    return repr(value) if isinstance(value, int | float) else type(value).__name__


def check_arguments(**arguments: object) -> None:
    """Check the types and the ranges of arguments by their names.

    Raises
    ------
    InvalidRequestError
        One is wrong. The message has its name and its type, and its value only for a number.
    """
    for name, value in arguments.items():
        accepts, wanted = _RULES[name]
        if accepts(value) or (value is None and name not in _REQUIRED):
            continue
        raise InvalidRequestError(f"{name} must be {wanted}, not {_shown(value)}")
