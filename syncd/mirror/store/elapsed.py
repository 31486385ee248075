"""Measures how much time has passed between passes, independently of wall clocks. `pull.sweep` measures waits by it.

A wall clock can step, and the clocks of two hosts differ, so a difference of two wall-clock times proves nothing. This
counter adds only time that was measured:

- If the same machine took the last reading and has not been restarted since: the difference of its monotonic clock,
  which all its processes share.
- If another machine took it, on PostgreSQL: the difference of the database server's clock, which all replicas share.
- Otherwise nothing: the time between the two readings does not count.

The readings also show a process at its start by how much the shared clock was set while no process measured it.

The table has two times of the last reading. `database_at` is the server's clock in the transaction. It measures the
time between readings of two machines, so it is null on SQLite, whose clock is that of a host. `clock_at` is the shared
clock at the moment of the monotonic reading, on both databases. It shows how far that clock was set since.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.db.dialects import PerDialect
from syncd.mirror.schema.tables import elapsed_time
from syncd.mirror.schema.types import UtcDateTime

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syncd.mirror.db.database import Database

_DATABASE_CLOCK = PerDialect(
    sqlite=sa.select(sa.null().label("now")),
    postgresql=sa.select(sa.func.clock_timestamp(type_=UtcDateTime()).label("now")),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """The monotonic clock of a machine and the shared clock, both read at one moment.

    Parameters
    ----------
    machine : str
        Names the machine since its last restart: see `clock.machine_boot`.
    monotonic : float
        Seconds.
    clock_at : datetime
        The shared clock at the same moment.
    """

    machine: str
    monotonic: float
    clock_at: datetime


def measure(connection: Connection, reading: Reading) -> int:
    """Return the counter in milliseconds, with the time since the last reading."""
    last = connection.execute(sa.select(elapsed_time)).first()
    return _milliseconds(last, reading, _database_time(connection))


def advance(connection: Connection, reading: Reading) -> int:
    """Add the time since the last reading to the counter; return the counter in milliseconds."""
    database_at = _database_time(connection)
    last = connection.execute(sa.select(elapsed_time).with_for_update()).first()
    milliseconds = _milliseconds(last, reading, database_at)
    write = sa.insert(elapsed_time).values(id=1) if last is None else sa.update(elapsed_time)
    monotonic_ms = _monotonic_ms(reading)
    values = {"machine": reading.machine, "monotonic_ms": monotonic_ms, "database_at": database_at}
    values["clock_at"] = reading.clock_at
    connection.execute(write.values(milliseconds=milliseconds, **values))
    return milliseconds


def clock_step(connection: Connection, reading: Reading) -> float:
    """Return by how many seconds the shared clock was set since the last reading; 0.0 if it is not known."""
    last = connection.execute(sa.select(elapsed_time)).first()
    if last is None or last.machine != reading.machine or last.clock_at is None:
        return 0.0
    passed: float = reading.monotonic - last.monotonic_ms / 1000
    by_clock: timedelta = reading.clock_at - last.clock_at
    return by_clock.total_seconds() - passed


async def continue_clock(database: Database, machine: str) -> None:
    """Note in the shared clock of a new process by how much it was set since the last reading of any process."""

    def work(connection: Connection) -> float:
        database.now(connection)
        clock = database.clock
        return clock_step(connection, Reading(machine, clock.monotonic(), clock.now()))

    database.clock.note_step(await database.read(work))


def _database_time(connection: Connection) -> datetime | None:
    database_at: datetime | None = connection.execute(_DATABASE_CLOCK.on(connection)).scalar()
    return database_at


def _monotonic_ms(reading: Reading) -> int:
    return round(reading.monotonic * 1000)


def _milliseconds(last: sa.Row[Any] | None, reading: Reading, database_at: datetime | None) -> int:
    if last is None:
        return 0
    passed = 0
    if last.machine == reading.machine:
        passed = _monotonic_ms(reading) - last.monotonic_ms
    elif database_at is not None and last.database_at is not None:
        passed = int((database_at - last.database_at).total_seconds() * 1000)
    return int(last.milliseconds) + max(passed, 0)
