"""The statements on sessions that differ between the databases: one interface, and the parts that both versions share.

`sessions_sqlite` and `sessions_postgresql` implement `SessionStatements`; `sessions` calls them. SQLite runs a prepared
statement for each row. PostgreSQL runs one statement for all rows, since each costs a round trip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from syncd.rules.versions import StoredSession

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from syncd.mirror.store.sources import Link
    from syncd.records.fields import FieldList, SessionRow
    from syncd.records.ids import PassId, SessionId, SourceId
    from syncd.rules.versions import Change


class NewSessions(NamedTuple):
    """The key of each session that was inserted by its id, in the order of the rows, and the source ids linked."""

    inserted: dict[SessionId, int]
    links: list[Link]


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A session that changes.

    Attributes
    ----------
    before, row : StoredSession, SessionRow
        Its row as it was read, and its content from now on.
    valid_from : str
        Since when, as `clock.utc_text` writes it.
    seq : int
        The reserved number of the version; see `totals`.
    changed_fields : str
        The JSON list of the columns that differ.
    """

    before: StoredSession
    row: SessionRow
    change: Change
    valid_from: str
    seq: int
    changed_fields: str


class LiveSession(NamedTuple):
    """A session that is not deleted."""

    key: int
    session_id: SessionId
    source_session_id: SourceId


class SessionStatements(Protocol):
    """Statements for the rows of `sessions` and `session_versions`, made for a list of fields.

    Times are text of `clock.utc_text`. `observed_at` is None for an observation by a listing.
    """

    def stored(self, connection: Connection, rows: Sequence[SessionRow]) -> dict[str, StoredSession]:
        """Return the stored rows of sessions by their ids.

        JSON that equals that of the given row is returned in the given row's own text.
        """
        ...

    def insert(
        self,
        connection: Connection,
        rows: Sequence[SessionRow],
        *,
        now: str,
        pass_id: PassId | None,
        observed_at: str | None,
        link: bool,
    ) -> NewSessions:
        """Insert those of some sessions that are not stored, with numbers of the change feed.

        Parameters
        ----------
        link : bool
            Link their source ids. During a first pass on SQLite, `initial_load` links them later.
        """
        ...

    def update(
        self, connection: Connection, versions: Sequence[NewVersion], *, pass_id: PassId | None, observed_at: str | None
    ) -> None:
        """Move current versions to the history and write new ones.

        Raises
        ------
        ConcurrentChangeError
            Another replica has changed one of the sessions since it was read.
        """
        ...

    def touch(self, connection: Connection, keys: Sequence[int], observed_at: str | None) -> None:
        """Note that live sessions were observed: none of them is missing any longer."""
        ...

    def lock_live(self, connection: Connection, keys: Sequence[int]) -> list[LiveSession]:
        """Return those of some sessions that are not deleted; no other transaction changes them until this one ends."""
        ...

    def tombstone(
        self,
        connection: Connection,
        numbers: Mapping[int, int],
        *,
        now: str,
        pass_id: PassId | None,
        observed_at: str | None,
    ) -> None:
        """Move current versions to the history and make tombstones of live sessions.

        Parameters
        ----------
        numbers : Mapping[int, int]
            The reserved number of the version of each session's key.
        """
        ...


DATES = {"created_date": "created_at", "last_message_date": "last_message_at"}
"""The columns with a date, and the time of which it is the UTC date."""
ARCHIVED = ("change", "seq", "changed_fields", "first_seen_at", "pass_id", "valid_from")
"""The columns that a version in the history copies from the session, besides those of its fields."""
STATE = tuple(name for name in StoredSession.__struct_fields__ if name != "content")
"""The columns that describe how a session is stored; those of its fields follow them in a SELECT."""

LIVE_AND_LISTED = "CASE WHEN deleted_at IS NULL THEN missing_since IS NULL END"
"""A condition that nearly all sessions meet.

Without statistics, PostgreSQL expects few rows with two columns that are NULL. To find the first ones of them in the
order of the keys, it would read and sort the whole table.
"""


def read_stored(rows: Sequence[Sequence[Any]], fields: FieldList[SessionRow]) -> dict[str, StoredSession]:
    """Read rows of `STATE` and the columns of the fields; return them by the ids of the sessions."""
    if not rows:
        return {}
    columns = dict(zip((*STATE, *fields.columns), zip(*rows, strict=False), strict=True))  # loops in C
    content = map(fields.row, *(columns[name] for name in fields.columns))
    return dict(zip(columns["id"], map(StoredSession, *(columns[name] for name in STATE), content), strict=True))


def sql_list(columns: Sequence[str], prefix: str = "") -> str:
    """Write columns as a list in SQL."""
    return ", ".join(f"{prefix}{column}" for column in columns)
