"""One version of a chat session, as the server stores it: its JSON, and the fields for sorting and filtering."""

import json
from datetime import date, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

Wire = dict[str, Any]

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ascii_encoder = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


class Session(NamedTuple):
    """An immutable version of a session.

    The other fields are derived from the encoded bytes once, so that a page is a join of bytes. It is a tuple, because
    200,000 of them are created at once, and tuples are fast to create.
    """

    number: int  # order of creation
    id: str
    source: str
    name: str
    parent_id: str | None
    kind: str | None
    automation_id: str | None
    created_by: str | None
    updated_by: str | None
    updated_at: str
    encoded: bytes

    def wire(self) -> Wire:
        """Return the session as it goes over the wire, as a new dict."""
        return decode(self.encoded)


def session_of(wire: Wire, number: int) -> Session:
    """Return the stored version of a session on the wire, which has `id` and `sourceSessionId`."""
    created, updated = _audit(wire, "Created"), _audit(wire, "Updated")
    return Session(
        number=number,
        id=wire["id"],
        source=wire["sourceSessionId"],
        name=str(wire.get("name")),
        parent_id=wire.get("parentId"),
        kind=wire.get("kind"),
        automation_id=wire.get("automationId"),
        created_by=created.get("by"),
        updated_by=updated.get("by"),
        updated_at=str(updated.get("at") or created.get("at") or ""),
        encoded=encode(wire),
    )


def _audit(wire: Wire, key: str) -> Wire:
    block = wire.get(key)
    return block if isinstance(block, dict) else {}  # a test may set any value


def encode(value: object) -> bytes:
    """Return compact JSON; a lone surrogate, which UTF-8 cannot contain, becomes an escape."""
    try:
        return _encoder.encode(value).encode()
    except UnicodeEncodeError:
        return _ascii_encoder.encode(value).encode()


def decode(encoded: bytes) -> Wire:
    """Return the session in some JSON."""
    wire: Wire = json.loads(encoded)
    return wire


def stamp(seconds: float) -> str:
    """Return the ISO 8601 text in UTC, with milliseconds, of a time in seconds since 1970."""
    day, milliseconds = divmod(round(seconds * 1000), 86_400_000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    clock = f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"
    return f"{_date(day)}T{clock}Z"


@lru_cache(maxsize=2048)
def _date(day: int) -> str:
    # A date takes most of the time of a timestamp, and the sessions are of some hundred days.
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def render(session: Session, *, extra_fields: bool) -> bytes:
    """Return a session as it is sent.

    With `extra_fields` every seventh session has unknown fields, and every eleventh unknown enum values. They are
    always the same, so that an unchanged session stays unchanged.
    """
    strange, unheard_of = session.number % 7 == 0, session.number % 11 == 0
    if not extra_fields or not (strange or unheard_of):
        return session.encoded
    wire = session.wire()
    if strange:
        wire |= {"pinned": session.number % 2 == 0, "retention": {"policy": "R&D", "days": session.number}}
    if unheard_of:
        wire |= {"kind": "agent", "status": "archived"}
    return encode(wire)
