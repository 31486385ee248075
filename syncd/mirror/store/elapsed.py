"""Measures how much time has passed between passes, without trusting a wall clock. `pull.sweep` measures a grace by it.

A wall clock can step, and the clocks of two hosts differ, so a difference of two wall-clock times proves nothing. This
counter adds only time that was measured:

- If the same machine took the last reading and has not been restarted since: the difference of its monotonic clock,
  which all its processes share.
- If another machine took it, on PostgreSQL: the difference of the database server's clock, which all replicas share.
- Otherwise nothing: the time between the two readings does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.mirror.db.dialects import PerDialect
from syncd.mirror.schema.tables import elapsed_time
from syncd.mirror.schema.types import UtcDateTime

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SHARED_CLOCK = PerDialect(
    sqlite=sa.select(sa.null().label("now")),
    postgresql=sa.select(sa.func.clock_timestamp(type_=UtcDateTime()).label("now")),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A monotonic clock at one moment.

    Parameters
    ----------
    machine : str
        Names the machine since its last restart: see `clock.machine_boot`.
    monotonic : float
        Seconds.
    """

    machine: str
    monotonic: float


def advance(connection: Connection, reading: Reading) -> int:
    """Add the time since the last reading to the counter; return the counter in milliseconds."""
    monotonic_ms = round(reading.monotonic * 1000)
    database_at: datetime | None = connection.execute(_SHARED_CLOCK.on(connection)).scalar()
    values = {"machine": reading.machine, "monotonic_ms": monotonic_ms, "database_at": database_at}
    last = connection.execute(sa.select(elapsed_time).with_for_update()).first()
    if last is None:
        connection.execute(sa.insert(elapsed_time).values(id=1, milliseconds=0, **values))
        return 0
    passed = 0
    if last.machine == reading.machine:
        passed = monotonic_ms - last.monotonic_ms
    elif database_at is not None and last.database_at is not None:
        passed = int((database_at - last.database_at).total_seconds() * 1000)
    milliseconds = int(last.milliseconds) + max(passed, 0)
    connection.execute(sa.update(elapsed_time).values(milliseconds=milliseconds, **values))
    return milliseconds
