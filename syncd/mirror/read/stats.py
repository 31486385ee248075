"""The snapshot of the mirror that the status server reads, for a scrape and for the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.db import leader
from syncd.mirror.db.dialects import PerDialect
from syncd.mirror.read import views
from syncd.mirror.schema import migrate
from syncd.mirror.schema.enums import CHANGES, ENDED
from syncd.mirror.schema.tables import operations, passes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

PASSES_PLOTTED = 60
"""The newest passes on the status page."""


@dataclass
class PassTotals:
    """Sums over all passes that have ended; a scrape reads only those that ended since the last one.

    Sums come from the database, so that a restart of the daemon does not reset them.
    """

    upto: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    pages: int = 0
    changes: Counter[str] = field(default_factory=Counter)

    def read(self, connection: Connection) -> None:
        """Add the passes that have ended since the last call."""
        columns = [passes.c[name] for name in ("id", "state", "started_at", "finished_at", "pages", *CHANGES)]
        query = sa.select(*columns).where(passes.c.id > self.upto, passes.c.state.in_(ENDED)).order_by(passes.c.id)
        for row in connection.execute(query.execution_options(yield_per=1000)).mappings():
            self.upto = row["id"]
            self.ended[row["state"]] += 1
            # as whole milliseconds: sums of them do not drift
            self.seconds[row["state"]] += round(1000 * (row["finished_at"] - row["started_at"]).total_seconds())
            self.pages += row["pages"]
            for change in CHANGES:
                self.changes[change] += row[change]


@dataclass(frozen=True)
class Snapshot:
    """The mirror at one moment.

    Parameters
    ----------
    at : datetime
        When it was read.
    overview : Mapping[str, Any]
        The result of `views.overview`.
    oldest_due : datetime | None
        Since when the longest waiting operation is due, those behind a blocked one included.
    database_bytes : int
        The database's size, without its WAL.
    replicas : Sequence[str]
        The daemons that run on the database, on PostgreSQL; empty on SQLite.
    """

    at: datetime
    overview: Mapping[str, Any]
    oldest_due: datetime | None
    database_bytes: int
    replicas: Sequence[str]


def snapshot(connection: Connection, totals: PassTotals, now: datetime) -> Snapshot:
    """Read a snapshot, and bring the totals up to it.

    Raises
    ------
    DatabaseUnusableError
        The schema is not at head.
    """
    migrate.require_head(connection)
    totals.read(connection)
    return Snapshot(
        now,
        views.overview(connection, passes_shown=PASSES_PLOTTED),
        _oldest_due(connection, now),
        _bytes(connection),
        leader.replicas(connection),
    )


def _oldest_due(connection: Connection, now: datetime) -> datetime | None:
    o = operations.c
    since = sa.func.coalesce(o.next_attempt_at, o.not_before, o.requested_at, type_=o.requested_at.type)
    query = sa.select(sa.func.min(since, type_=o.requested_at.type)).where(
        o.state.in_(("pending", "unknown")), since <= now
    )
    oldest_due: datetime | None = connection.execute(query).scalar()
    return oldest_due


_BYTES = PerDialect(
    sqlite="SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
    postgresql="SELECT pg_database_size(current_database())",
)


def _bytes(connection: Connection) -> int:
    return int(connection.exec_driver_sql(_BYTES.on(connection)).scalar_one())
