"""Deletes old rows that neither syncd nor an open decision needs. `syncd prune` calls it while the daemon runs.

::

    for each table:  read the keys of the next old rows  ─►  delete those that are still old
                     a snapshot, no lock                     one short transaction

The daemon's writes wait for a chunk of `CHUNK` rows at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.schema.tables import operations, passes, quarantine, session_versions
from syncd.mirror.store import operator_actions
from syncd.records.enums import OperationState, PassState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.mirror.db.database import Database

CHUNK = 1000
"""Rows that one transaction deletes; a thousand take some milliseconds."""
LONG_AGO = 86_400.0
"""Seconds after which syncd needs no finished row, also if no pass has been complete since: late answers are compared
with rows of the last minutes. With a long grace or settle time it is twice that time."""
_DONE = (OperationState.SUCCEEDED, OperationState.CANCELLED)
"""Final states of operations that need no person and block nothing."""
_OVER = (PassState.COMPLETE, PassState.PARTIAL, PassState.FAILED)
"""States of passes that no decision is pending for."""

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Old:
    """The old rows of one table: those that match a condition, in the order of their primary key."""

    table: sa.Table
    condition: sa.ColumnElement[bool]
    after: Key | None = None
    """The last key that was read before; None for the start."""

    @property
    def key(self) -> list[sa.Column[Any]]:
        """The columns of the primary key."""
        return list(self.table.primary_key.columns)


def needed_since(connection: Connection, *, now: datetime, delete_grace: float, settle: float) -> datetime:
    """Return the moment from which syncd still needs finished rows.

    A listing after the grace can contradict a delete. The newest complete pass has compared all that was finished
    earlier than the longer of grace and settle time before its start.

    Parameters
    ----------
    delete_grace, settle : float
        Seconds.
    """
    late = max(delete_grace, settle)
    long_ago = now - timedelta(seconds=max(LONG_AGO, 2 * late))
    began = connection.execute(
        sa.select(passes.c.started_at).where(passes.c.state == PassState.COMPLETE).order_by(passes.c.id.desc()).limit(1)
    ).scalar()
    return long_ago if began is None else max(long_ago, began - timedelta(seconds=late))


def old_rows(before: datetime, *, history: bool) -> list[Old]:
    """Return what is old at a moment: finished operations, passes, resolved items, and versions if asked for.

    Open and dead operations are kept, and operations that others wait for. Held passes are kept, the running one, and
    the newest complete one with all that follow it. Items that the newest complete pass can refer to are kept.
    """
    waited_for = sa.select(operations.c.blocked_by).where(
        operations.c.state.not_in((*_DONE, OperationState.DEAD)), operations.c.blocked_by.is_not(None)
    )
    newest = sa.select(sa.func.max(passes.c.id)).where(passes.c.state == PassState.COMPLETE).scalar_subquery()
    newest_began = sa.select(passes.c.started_at).where(passes.c.id == newest).scalar_subquery()
    old = [
        Old(
            operations,
            operations.c.state.in_(_DONE) & (operations.c.finished_at < before) & operations.c.id.not_in(waited_for),
        ),
        Old(passes, passes.c.state.in_(_OVER) & (passes.c.finished_at < before) & (passes.c.id < newest)),
        Old(quarantine, (quarantine.c.resolved_at < before) & (quarantine.c.resolved_at < newest_began)),
    ]
    return [*old, Old(session_versions, session_versions.c.valid_to < before)] if history else old


def count(connection: Connection, old: Sequence[Old]) -> dict[str, int]:
    """Return the number of old rows of each table."""
    return {
        rows.table.name: connection.execute(sa.select(sa.func.count()).where(rows.condition)).scalar_one()
        for rows in old
    }


async def prune(database: Database, old: Sequence[Old], *, by: str, now: datetime, what: str) -> dict[str, int]:
    """Delete old rows in short transactions; return the number of deleted rows of each table.

    Parameters
    ----------
    by : str
        The person, for the log of operator actions. The entry is written with the first deleted row.
    what : str
        The text of that entry, such as `rows older than 90d`.

    Raises
    ------
    DatabaseUnusableError
        The database cannot be used; the rows that were deleted until then stay deleted.
    """
    deleted: dict[str, int] = {}
    entry = partial(operator_actions.record, now=now, by=by, action="prune", subject=what)
    for rows in old:
        deleted[rows.table.name], rest = 0, rows
        while keys := await database.read(partial(_next_keys, old=rest)):
            first = not any(deleted.values())
            deleted[rows.table.name] += await database.write(
                partial(_delete, old=rest, keys=keys, entry=entry if first else None)
            )
            rest = replace(rest, after=keys[-1])
    return deleted


def _next_keys(connection: Connection, old: Old) -> list[Key]:
    """Read the keys of the next chunk of old rows."""
    query = sa.select(*old.key).where(old.condition).order_by(*old.key).limit(CHUNK)
    if old.after is not None:
        query = query.where(sa.tuple_(*old.key) > old.after)
    return [tuple(row) for row in connection.execute(query)]


def _delete(connection: Connection, old: Old, keys: Sequence[Key], entry: partial[None] | None) -> int:
    """Delete the rows with these keys that are still old; return how many there were."""
    done = connection.execute(sa.delete(old.table).where(sa.tuple_(*old.key).in_(keys), old.condition)).rowcount
    if done and entry is not None:
        entry(connection)
    return done
