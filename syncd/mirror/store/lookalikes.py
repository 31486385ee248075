"""Ids of an import file that look like others of the file, of the mirror or of the queue. Dry runs report them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.db.lossy_text import lossy_text, text_value
from syncd.mirror.schema.tables import operations, sessions, source_sessions
from syncd.records.enums import OPEN_STATES
from syncd.rules.lookalikes import Lookalike, NamedId, lookalikes

if TYPE_CHECKING:
    from sqlalchemy import Connection

_CHUNK = 10_000
"""Ids that are read at once: a mirror of a million is compared within a few megabytes."""
_COLUMNS = {"source_session_id": "source_session_id", "id": "session_id"}
"""The column of a file, and the key of its value in a row."""


def find(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Lookalike]:
    """Return the lookalikes of a file.

    Parameters
    ----------
    rows : Sequence[Mapping[str, Any]]
        Rows with `place`, and with `source_session_id` and `session_id` where they have one.
    """
    ids = [
        NamedId(row["place"], column, row[key])
        for row in rows
        for column, key in _COLUMNS.items()
        if row.get(key) is not None
    ]
    columns = {named_id.column for named_id in ids}
    with lossy_text(connection):
        return list(lookalikes(ids, _known(connection, columns)))


def _known(connection: Connection, columns: set[str]) -> Iterator[NamedId]:
    """Yield the ids that the queue and the mirror have in the columns of a file.

    A source id in the queue is one of the mirror too. It is reported as one of the queue, because that comes first.
    """
    is_open = operations.c.state.in_(OPEN_STATES)
    if "source_session_id" in columns:
        yield from _read(connection, "queue", "source_session_id", operations.c.source_session_id, is_open)
        yield from _read(connection, "mirror", "source_session_id", source_sessions.c.source_session_id, sa.true())
    if "id" in columns:
        yield from _read(connection, "queue", "id", operations.c.session_id, is_open)
        yield from _read(connection, "mirror", "id", sessions.c.id, sessions.c.deleted_at.is_(None))


def _read(
    connection: Connection, place: str, column: str, source: sa.Column[Any], where: sa.ColumnElement[bool]
) -> Iterator[NamedId]:
    """Yield the distinct values of a column, in chunks by their order."""
    last: str | None = None
    while True:
        after = source.is_not(None) if last is None else source > text_value(connection, last)
        query = sa.select(source).where(where, after).distinct().order_by(source).limit(_CHUNK)
        values = [value for (value,) in connection.execute(query)]
        yield from (NamedId(place, column, value) for value in values)
        if len(values) < _CHUNK:
            return
        last = values[-1]
