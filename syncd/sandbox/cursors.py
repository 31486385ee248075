"""Page keys: opaque to the client, and to this server the position of the last item that was served.

A key contains its whole meaning, so that it is valid after a restart of the server, as with a real key-paginated store.
"""

import base64
import json
from dataclasses import dataclass

from syncd.sandbox.listing import Position

# The key is unknown unless each of these characters returns unchanged, so that encoding errors are found.
_AWKWARD_HEAD = '+/=&%#? "ü%2B;'
_AWKWARD_TAIL = "\\+%25==&startKey=x ß"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The start of a page: after the position `after`, in a listing sorted by `order`."""

    order: str
    after: Position | None
    issued_at: float
    hollow: bool = False  # whether the empty page before this one was served


def write(cursor: Cursor, *, awkward: bool) -> str:
    """Return the text of a page key."""
    parts = [cursor.order, cursor.after, cursor.issued_at, cursor.hollow]
    text = base64.urlsafe_b64encode(json.dumps(parts).encode()).rstrip(b"=").decode()
    return f"{_AWKWARD_HEAD}{text}{_AWKWARD_TAIL}" if awkward else text


def read(text: str) -> Cursor:
    """Return the content of a page key; raise ValueError unless it is exactly a key of `write`."""
    if text.startswith(_AWKWARD_HEAD) and text.endswith(_AWKWARD_TAIL):
        text = text[len(_AWKWARD_HEAD) : -len(_AWKWARD_TAIL)]
    padded = text + "=" * (-len(text) % 4)
    match json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)):
        case [str(order), [str(first), int(second)], int() | float() as issued_at, bool(hollow)]:
            return Cursor(order, (first, second), issued_at, hollow)
        case [str(order), None, int() | float() as issued_at, bool(hollow)]:
            return Cursor(order, None, issued_at, hollow)
    raise ValueError("not a page key of this server")
