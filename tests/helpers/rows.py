"""Rows for tests: sessions with few columns set, and a list of fields with every type of field."""

from typing import Annotated, Any

from syncd.records.fields import (
    SESSIONS,
    Boolean,
    FieldList,
    Json,
    Number,
    SessionRow,
    Text,
    Time,
    Wire,
)

_OPTIONAL: dict[str, Any] = dict.fromkeys(field.column for field in SESSIONS.fields if not field.required)


def session_row(session_id: str = "A", **columns: Any) -> SessionRow:
    """Return a session; columns that are not given are null."""
    row: dict[str, Any] = _OPTIONAL | {"id": session_id, "name": "n", "source_session_id": "s"} | columns
    return SessionRow(**row)


class SampleRow(SessionRow, frozen=True, gc=False):
    """A session as Albert may serve it one day: with a new field of every type."""

    label: Annotated[Text | None, Wire("label", "a text", "urgent")] = None
    size: Annotated[Number | None, Wire("size", "a number", "1.5")] = None
    pinned: Annotated[Boolean | None, Wire("pinned", "a boolean", "true")] = None
    tags: Annotated[Json | None, Wire("Meta.tags", "any JSON", '["a"]')] = None
    archived_at: Annotated[Time | None, Wire("Meta.archivedAt", "a time", "2026-06-01T10:30:00.000000Z")] = None


SAMPLES: FieldList[SampleRow] = FieldList(SampleRow, noun="session", indexed=("id", "source_session_id"))
