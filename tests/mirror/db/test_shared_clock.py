"""All daemons of a database have one clock: the host's on SQLite, the server's on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.db.shared_clock import DatabaseClock, HostClock, read_clock
from tests.helpers.virtual_clock import VirtualClock

AN_HOUR = timedelta(hours=1)


@pytest.fixture
def host() -> VirtualClock:
    """Return the clock of a host that is in the past."""
    return VirtualClock()


async def test_clock_of_sqlite_is_that_of_the_host(tmp_path: Path, host: VirtualClock) -> None:
    url = sa.make_url(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    async with Database.create(url, host_clock=host) as database:
        assert await database.write(database.now) == host.now() == database.clock.now()
        host.forward(60)
        assert database.clock.now() == host.now()
        assert abs(await database.read(read_clock) - datetime.now(UTC)) < AN_HOUR


async def test_clock_of_postgresql_is_that_of_the_server_and_not_of_the_host(
    postgres_url: str, host: VirtualClock
) -> None:
    real = datetime.now(UTC)
    async with Database(sa.make_url(postgres_url), busy_timeout=5, host_clock=host) as database:
        reading = await database.write(database.now)
        assert abs(reading - real) < AN_HOUR
        host.forward(60)
        assert database.clock.now() - reading == timedelta(seconds=60)


async def test_clock_of_postgresql_advances_during_a_transaction(postgres_url: str) -> None:
    async with Database(sa.make_url(postgres_url), busy_timeout=5) as database:

        def twice(connection: sa.Connection) -> list[datetime]:
            first = database.now(connection)
            connection.exec_driver_sql("SELECT pg_sleep(0.01)")
            return [first, database.now(connection)]

        first, second = await database.write(twice)
        assert second - first >= timedelta(milliseconds=10)


def test_step_of_the_hosts_wall_clock_does_not_change_the_servers_time() -> None:
    host = SteppedClock()
    clock = DatabaseClock(host, lambda _: datetime(2030, 1, 1, tzinfo=UTC))
    connection: sa.Connection = None  # type: ignore[assignment]  # the source needs none
    clock.read(connection)
    host.wall += timedelta(hours=5)
    assert clock.now() == datetime(2030, 1, 1, tzinfo=UTC)
    host.seconds += 2.5
    assert clock.now() == datetime(2030, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)


def test_clock_of_the_host_is_used_until_the_clock_of_the_server_is_read() -> None:
    host = SteppedClock()
    assert DatabaseClock(host, lambda _: datetime(2030, 1, 1, tzinfo=UTC)).now() == host.wall
    assert HostClock(host).now() == host.wall


class SteppedClock:
    """A host whose wall clock and monotonic clock are set independently."""

    def __init__(self) -> None:
        self.wall, self.seconds = datetime(2026, 6, 1, tzinfo=UTC), 100.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
