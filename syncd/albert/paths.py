"""Ids are data, never path syntax: each becomes exactly one percent-encoded path segment, or is refused."""

from __future__ import annotations

import re
from urllib.parse import quote

from syncd.albert.errors import InvalidIdError

MAX_LENGTH = 1024
"""Characters of an id; longer ones meet the request-line limits of servers (8 KB) once encoded."""
MAX_BYTES = 2000
"""Bytes of an id, which leave room for the other one of a session; see `listing.LONGEST_IDS`."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def segment(value: str) -> str:
    """Return ``value`` as one path segment, everything but unreserved characters percent-encoded.

    Encoding alone is not enough: a server, a proxy or this side's own URL class may resolve ``.`` and ``..``
    (encoded dots too, by WHATWG's rules), an empty segment names the collection instead of the item, and
    control characters are for log and header injection.

    Raises
    ------
    InvalidIdError
        ``value`` is not text, is empty, ``.`` or ``..``, is longer than 1,024 characters or 2,000 bytes, or holds a
        control character (C0, DEL, C1) or a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidIdError(f"an id is text, not {type(value).__name__}")
    if value in {"", ".", ".."}:
        raise InvalidIdError(f"{value!r} cannot be an id")
    if len(value) > MAX_LENGTH:
        raise InvalidIdError(f"an id of {len(value)} characters is too long, the limit is {MAX_LENGTH}")
    if _CONTROL.search(value):
        raise InvalidIdError(f"an id with a control character cannot be sent: {value[:80]!a}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidIdError(f"an id with a lone surrogate cannot be sent: {value[:80]!a}") from None
    if size > MAX_BYTES:
        raise InvalidIdError(f"an id of {size} bytes is too long, the limit is {MAX_BYTES}")
    return quote(value, safe="")
