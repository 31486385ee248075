"""JSON with defects, parsed so that a defect affects one item and not its page. Called by `records.parse`.

`msgspec` parses JSON without defects. The standard library's parser, which is slower and accepts more, parses the rest:
NaN, lone surrogates, bytes that are not UTF-8, control characters in strings. `storable` and `canonical` find the
defects in one item.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

NUL = b"\\u0000"
"""NUL as JSON writes it. No database stores one."""


def parse(body: bytes) -> tuple[Any, bool]:
    """Parse a body.

    Returns
    -------
    tuple[Any, bool]
        The value, and whether its text may contain what a database cannot store (NUL, a lone surrogate).

    Raises
    ------
    ValueError
        The body is not JSON.
    """
    try:
        return msgspec.json.decode(body), NUL in body
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    try:
        try:
            return _parse_tolerantly(body), True
        except RecursionError:
            return _parse_tolerantly(_prune(body)), True
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer is not JSON: {type(error).__name__}") from None


def _parse_tolerantly(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parse a body; bytes that are not UTF-8 become lone surrogates."""
    return json.loads(body.decode("utf-8-sig", "surrogateescape"), parse_int=_integer, strict=False)


def _integer(digits: str) -> int | float:
    """Read an integer; NaN for one with more digits than Python accepts."""
    try:
        return int(digits)
    except ValueError:
        return math.nan


def _prune(body: bytes) -> bytes:
    """Replace values that are nested more deeply than `DEEPEST` by NaN, which makes their items unreadable."""
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
"""Levels of nesting. Half of what the standard library's parser accepts within Python's default recursion limit."""
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
"""Brackets, and strings, which may contain brackets."""


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
    """Whether all text in a JSON value, keys included, can be stored."""
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
    """Write a value so that equal content has equal text, whatever the order of keys.

    Raises
    ------
    ValueError
        The value contains what JSON cannot express: NaN, an infinite number, or too many levels.
    """
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def payload(item: Any) -> str:  # noqa: ANN401 - whatever the server sent
    """Write an unreadable item for the quarantine: ASCII JSON, which every database can store."""
    try:
        return json.dumps(item)
    except (ValueError, RecursionError):
        return json.dumps(f"an item that JSON cannot express: {sorted(map(str, item))}"[:1000])
