"""Sessions: the effect of an observation on their rows. The hot path of a pass.

A page is one SELECT of the rows that it names and, only for what is new or changed, statements that are written once.
The current version of a session is its row in `sessions`; a change first moves it to `session_versions`. Every change
of a row also updates `source_sessions` in the same transaction.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
from pyroaring import BitMap64

from syncd.mirror.db import raw
from syncd.mirror.db.dialects import EARLIEST, ConcurrentChangeError, PerDialect
from syncd.mirror.schema.tables import session_versions, sessions
from syncd.mirror.store import operations, sources, totals
from syncd.mirror.store.session_statements import NewVersion
from syncd.mirror.store.sessions_postgresql import PostgresqlSessions
from syncd.mirror.store.sessions_sqlite import SqliteSessions
from syncd.records.fields import SESSIONS
from syncd.rules.versions import Change, Timing, classify_change

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.mirror.store.session_statements import NewSessions, SessionStatements
    from syncd.mirror.store.sources import Link
    from syncd.records.fields import SessionRow
    from syncd.records.ids import PassId, SessionId, SourceId
    from syncd.rules.versions import StoredSession

STATEMENTS: PerDialect[SessionStatements] = PerDialect(
    sqlite=SqliteSessions(SESSIONS), postgresql=PostgresqlSessions(SESSIONS)
)


@dataclass(slots=True)
class ApplyResult:
    """The effect of an observation on the mirror.

    Attributes
    ----------
    keys : list[int]
        The key of each session, in the order of the rows.
    changes : dict[int, Change]
        The sessions whose rows were written: inserted, updated or restored.
    restored, deleted : list[str]
        The ids of restored sessions; and of new ones that an operation had already deleted.
    clean : bool
        The mirror now contains exactly the content of the answer.
    versions : int
        The sum of the sessions' versions.
    sources : list[Link]
        The source ids whose state changed.
    """

    keys: list[int] = field(default_factory=list)
    changes: dict[int, Change] = field(default_factory=dict)
    restored: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    clean: bool = True
    versions: int = 0
    sources: list[Link] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Observation:
    """How sessions were observed.

    Parameters
    ----------
    asked_at, now : str
        When the answer was requested, and when it is written.
    pass_id : int | None
        The pass whose page it was; None for an operation or a look-up.
    listed_from : str | None
        See `rules.versions.Timing`.
    lifts : bool
        A tombstone may be lifted.
    seen : BitMap64
        The keys of sessions on earlier pages of the same pass.
    new : bool
        Most of the sessions are probably new: they are inserted, and only those that were left out are looked up.
    deletions : bool
        Operations may have deleted sessions that neither the answer nor the mirror knows to be deleted.
    loading : bool
        Leave the source ids of new sessions to `initial_load`.
    set_back : float
        See `rules.versions.Timing`.
    """

    asked_at: str
    now: str
    pass_id: PassId | None = None
    listed_from: str | None = None
    lifts: bool = True
    seen: BitMap64 = field(default_factory=BitMap64)
    new: bool = False
    deletions: bool = True
    loading: bool = False
    set_back: float = 0.0

    @property
    def observed_at(self) -> str | None:
        """Return when the row was observed by other means than a listing."""
        return self.now if self.pass_id is None else None

    @property
    def timing(self) -> Timing:
        """Return the properties of the answer that the rules need."""
        return Timing(
            asked_at=self.asked_at,
            now=self.now,
            listed_from=self.listed_from,
            lifts=self.lifts,
            paged=self.pass_id is not None,
            set_back=self.set_back,
        )


@dataclass(slots=True)
class _Decision:
    """The changes to write for some rows; `keys`, `versions` and `clean` as in `ApplyResult`."""

    new: list[SessionRow] = field(default_factory=list)
    changed: list[tuple[StoredSession, SessionRow, Change]] = field(default_factory=list)
    touched: list[StoredSession] = field(default_factory=list)
    keys: dict[SessionId, int] = field(default_factory=dict)
    versions: int = 0
    clean: bool = True


def apply(connection: Connection, rows: Sequence[SessionRow], observation: Observation) -> ApplyResult:
    """Write an observation; an unchanged session costs no write.

    Parameters
    ----------
    rows : Sequence[SessionRow]
        Each id at most once.

    Raises
    ------
    ConcurrentChangeError
        Another replica has written one of the sessions since it was read: run the transaction again.
    """
    statements, applied = STATEMENTS.on(connection), ApplyResult()
    keys = _insert(connection, rows, observation, applied) if observation.new and rows else {}
    if rest := [row for row in rows if row.id not in keys]:
        decision = _decide(rest, statements.stored(connection, rest), observation)
        applied.clean = decision.clean
        applied.versions += decision.versions
        keys |= decision.keys
        if decision.new:
            keys |= _insert(connection, decision.new, observation, applied)
        if decision.changed:
            _update(connection, decision.changed, observation, applied)
        if decision.touched:
            _touch(connection, decision.touched, observation, applied)
    applied.keys = [keys[row.id] for row in rows]
    if observation.listed_from is not None and observation.deletions:
        new = {session_id: key for session_id, key in keys.items() if applied.changes.get(key) is Change.INSERTED}
        _delete_again(connection, new, observation, applied)
    return applied


def _decide(rows: Sequence[SessionRow], stored: Mapping[str, StoredSession], observation: Observation) -> _Decision:
    """Compare rows with the stored ones."""
    decision, timing = _Decision(), observation.timing
    by_listing = observation.observed_at is None
    for row in rows:
        before = stored.get(row.id)
        if before is None:
            decision.new.append(row)
            continue
        decision.keys[row.id] = before.key
        if before.content == row and by_listing and before.missing_since is None and before.deleted_at is None:
            decision.versions += before.version  # the state of nearly all rows
            continue
        change = classify_change(before, row, timing, listed_twice=before.key in observation.seen)
        if change in {Change.UPDATED, Change.RESTORED}:
            decision.changed.append((before, row, change))
            continue
        decision.clean &= change is Change.UNCHANGED
        decision.versions += before.version
        if before.deleted_at is None and (before.missing_since or not by_listing):
            decision.touched.append(before)
    return decision


def _delete_again(
    connection: Connection, new: Mapping[SessionId, int], observation: Observation, applied: ApplyResult
) -> None:
    """Make tombstones of new sessions that an operation has deleted since the answer may have been true."""
    if new:
        since = observation.listed_from if observation.lifts and observation.listed_from else EARLIEST
        gone = operations.deleted_since(connection, new, since)
        applied.deleted = tombstone(connection, [new[session_id] for session_id in gone], now=observation.now)
        applied.clean &= not gone


def _insert(
    connection: Connection, rows: Sequence[SessionRow], observation: Observation, applied: ApplyResult
) -> dict[SessionId, int]:
    """Insert sessions; return the keys of those that were new."""
    new = STATEMENTS.on(connection).insert(
        connection,
        rows,
        now=observation.now,
        pass_id=observation.pass_id,
        observed_at=observation.observed_at,
        link=not observation.loading,
    )
    if len(new.inserted) != len(rows) and not observation.new:
        raise ConcurrentChangeError("another replica has written one of these sessions first")
    applied.changes.update(dict.fromkeys(new.inserted.values(), Change.INSERTED))
    applied.versions += len(new.inserted)
    applied.sources += new.links
    return new.inserted


def _update(
    connection: Connection,
    changed: Sequence[tuple[StoredSession, SessionRow, Change]],
    observation: Observation,
    applied: ApplyResult,
) -> None:
    versions = []
    moved: set[SourceId] = set()
    restored = sum(change is Change.RESTORED for *_, change in changed)
    first = totals.reserve(connection, len(changed), live=restored, deleted=-restored)
    for seq, (before, row, change) in enumerate(changed, first):
        valid_from = max(observation.now, before.valid_from)  # `valid_to >= valid_from` when the clock steps back
        versions.append(NewVersion(before, row, change, valid_from, seq, _changed_fields(before, row)))
        applied.changes[before.key] = change
        applied.versions += before.version + 1
        if change is Change.RESTORED:
            applied.restored.append(row.id)
        if (
            change is Change.RESTORED
            or before.missing_since
            or before.content.source_session_id != row.source_session_id
        ):
            moved |= {before.content.source_session_id, row.source_session_id}
    STATEMENTS.on(connection).update(
        connection, versions, pass_id=observation.pass_id, observed_at=observation.observed_at
    )
    applied.sources += sources.refresh(connection, moved, observation.now)


def _changed_fields(before: StoredSession, row: SessionRow) -> str:
    """Return the JSON list of the columns in which a session differs from its last version."""
    return json.dumps([name for name in SESSIONS.columns if getattr(before.content, name) != getattr(row, name)])


def _touch(
    connection: Connection, touched: Sequence[StoredSession], observation: Observation, applied: ApplyResult
) -> None:
    totals.lock(connection)
    STATEMENTS.on(connection).touch(connection, [before.key for before in touched], observation.observed_at)
    moved = {before.content.source_session_id for before in touched if before.missing_since}
    applied.sources += sources.refresh(connection, moved, observation.now)


def insert_new(connection: Connection, rows: Sequence[SessionRow], *, now: str) -> NewSessions:
    """Insert sessions from answers to creates; a session that the mirror already has stays as it is."""
    return STATEMENTS.on(connection).insert(connection, rows, now=now, pass_id=None, observed_at=now, link=True)


def tombstone(connection: Connection, keys: Iterable[int], *, now: str, pass_id: PassId | None = None) -> list[str]:
    """Make tombstones of live sessions.

    Returns
    -------
    list[str]
        The ids of the sessions that were live until now.
    """
    to_delete = sorted(keys)
    if not to_delete:
        return []
    statements = STATEMENTS.on(connection)
    totals.lock(connection)
    live = statements.lock_live(connection, to_delete)
    if live:
        first = totals.reserve(connection, len(live), live=-len(live), deleted=len(live))
        observed_at = now if pass_id is None else None
        numbers = {session.key: seq for seq, session in enumerate(live, first)}
        statements.tombstone(connection, numbers, now=now, pass_id=pass_id, observed_at=observed_at)
        sources.refresh(connection, {session.source_session_id for session in live}, now)
    return [session.session_id for session in live]


def archived_from(connection: Connection, key: int, pass_id: PassId) -> bool:
    """Whether a pass has written a version of a session that is past by now."""
    of_pass = (session_versions.c.session_key == key, session_versions.c.pass_id == pass_id)
    query = sa.select(session_versions.c.version).where(*of_pass).limit(1)
    return connection.execute(query).first() is not None


def key_of(connection: Connection, session_id: SessionId) -> int | None:
    """Return the key of a session; None when the mirror never saw it."""
    return connection.execute(sa.select(sessions.c.key).where(sessions.c.id == session_id)).scalar()


def observed_at(connection: Connection, session_id: SessionId) -> datetime | None:
    """Return when something other than a listing last showed a live session; None if nothing did."""
    live = (sessions.c.id == session_id) & sessions.c.deleted_at.is_(None)
    return connection.execute(sa.select(sessions.c.observed_at).where(live)).scalar()


def source_of(connection: Connection, session_id: SessionId) -> str | None:
    """Return the source id of a session; None if the mirror has no such session."""
    return connection.execute(sa.select(sessions.c.source_session_id).where(sessions.c.id == session_id)).scalar()


def is_live(connection: Connection, session_id: SessionId) -> bool:
    """Whether the mirror has a session that is not deleted."""
    query = "SELECT 1 FROM sessions WHERE id = ? AND deleted_at IS NULL"
    return raw.execute(connection, query, (session_id,)).fetchone() is not None
