"""Ids in paths: each becomes exactly one percent-encoded segment, or is refused. Imports use the same check."""

from __future__ import annotations

import re
from urllib.parse import quote

from syncd.albert.errors import InvalidIdError

MAX_LENGTH = 1024
"""Characters of an id. A longer one can exceed the request line of servers (8 KB) when it is encoded."""
MAX_BYTES = 2000
"""Bytes of an id in UTF-8. `records.items.LONGEST_INDEXED` bounds the two ids of a session together."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def segment(value: str | None) -> str:
    """Return an id as one path segment; every character that is not unreserved is percent-encoded.

    Encoding alone is not sufficient. A server, a proxy or a URL class can resolve ``.`` and ``..``, also encoded ones
    (by the rules of WHATWG). An empty segment names the collection instead of the item. Control characters serve log
    and header injection.

    Raises
    ------
    InvalidIdError
        The id is not text, is empty, ``.`` or ``..``, is longer than 1,024 characters or 2,000 bytes, or contains a
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
