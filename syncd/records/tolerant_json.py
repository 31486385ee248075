"""JSON as a hostile server writes it: parsed so that what nobody can read or keep costs its own item, not its page."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic_core import from_json

NUL = b"\\u0000"
"""How a NUL stands in JSON: no database keeps one."""


def parse(body: bytes) -> tuple[Any, bool]:
    """Parse a body; the second value tells whether its text may hold what a database cannot.

    Raises
    ------
    ValueError
        It is no JSON.
    """
    try:
        return from_json(body, allow_inf_nan=False), NUL in body
    except ValueError:
        pass  # NaN, half surrogate pairs and the like are an item's fault: the slower parser lets them be judged
    try:
        try:
            return _lenient(body), True
        except RecursionError:
            return _lenient(_shallow(body)), True
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer is not JSON: {type(error).__name__}") from None


def _lenient(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parse a body in which an item may hold what nobody can: bytes that are no text become half surrogate pairs."""
    return json.loads(body.decode("utf-8-sig", "surrogateescape"), parse_int=_integer)


def _integer(digits: str) -> int | float:
    """Read a whole number; one of thousands of digits is as good as none."""
    try:
        return int(digits)
    except ValueError:
        return math.nan


def _shallow(body: bytes) -> bytes:
    """Put NaN in the place of what no parser can follow down, so that it costs its own item and not the page."""
    parts, kept, depth = [], 0, 0
    for token in _BRACKETS.finditer(body):
        match token.group():
            case b"[" | b"{":
                depth += 1
                if depth == DEEPEST + 1:
                    parts.append(body[kept : token.start()])
            case b"]" | b"}":
                depth -= 1
                if depth == DEEPEST:
                    parts.append(b"NaN")
                    kept = token.end()
    return b"".join((*parts, body[kept:]))


DEEPEST = 200
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
"""Strings, so that what is in them is passed over, and brackets."""


def sendable(text: str) -> bool:
    """Whether text can be sent in a URL and stored."""
    return "\0" not in text and _encodable(text)


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable(value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether every text in a JSON value, keys included, can be stored."""
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, str):
            if not sendable(top):
                return False
        elif isinstance(top, dict):
            stack.extend(top.keys())
            stack.extend(top.values())
        elif isinstance(top, list):
            stack.extend(top)
    return True


def canonical(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Write a value so that the order of keys does not count.

    Raises
    ------
    ValueError
        There is something in it that JSON cannot hold: NaN, or a number without end.
    """
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def payload(item: Any) -> str:  # noqa: ANN401 - whatever the server sent
    """Write an unreadable item for the quarantine: JSON in ASCII, which every database can hold."""
    try:
        return json.dumps(item)
    except (ValueError, RecursionError):
        return json.dumps(f"an item that JSON cannot hold: {sorted(map(str, item))}"[:1000])
