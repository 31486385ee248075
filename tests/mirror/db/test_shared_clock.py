"""All daemons of a database have one clock: the host's on SQLite, the server's on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.db.shared_clock import MOST_STEPS, WRITTEN_AFTER, DatabaseClock, HostClock, Steps, read_clock
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


def stepped() -> tuple[SteppedClock, HostClock]:
    host = SteppedClock()
    clock = HostClock(host)
    clock.now()
    return host, clock


def test_span_is_longer_after_the_clock_was_set_forward_for_as_long_as_an_answer_can_be_that_old() -> None:
    host, clock = stepped()
    host.both(10)
    assert clock.span(30) == 30
    host.wall += AN_HOUR
    assert clock.span(30) == 3630
    host.both(30 + WRITTEN_AFTER - 1)
    assert clock.span(30) == 3630
    assert clock.span(10) == 10
    host.both(1)
    assert clock.span(30) == 30


def test_steps_forward_add_up_and_steps_back_are_subtracted() -> None:
    host, clock = stepped()
    for step in (20, 40):
        host.wall += timedelta(seconds=step)
        assert clock.span(0) == pytest.approx(step if step == 20 else 60)
    host.wall -= timedelta(seconds=50)
    assert clock.span(0) == pytest.approx(10)
    host.wall -= AN_HOUR
    assert clock.span(0) == 0


def test_clock_that_was_set_back_is_known_to_be_for_some_seconds() -> None:
    host, clock = stepped()
    assert clock.set_back(30) == 0
    host.both(10)
    host.wall -= AN_HOUR
    assert clock.set_back(30) == pytest.approx(3600)
    host.both(29)
    assert clock.set_back(30) == pytest.approx(3600)
    assert clock.span(30) == pytest.approx(30)
    host.both(2)
    assert clock.set_back(30) == 0


def test_small_differences_between_readings_do_not_add_up_unless_the_clock_drifts() -> None:
    host, clock = stepped()
    for number in range(100):
        host.wall += timedelta(seconds=0.04 if number % 2 else -0.04)
        assert clock.span(0) < 0.1
    for _ in range(100):
        host.both(1)
        host.wall += timedelta(seconds=0.02)
        clock.now()
    assert 1.0 < clock.span(0) < 1.4, "of the last minute"


def test_steps_that_are_remembered_are_bounded_and_a_large_one_is_not_forgotten() -> None:
    steps = Steps()
    wall = datetime(2026, 1, 1, tzinfo=UTC)
    steps.note(wall, 0.0)
    for second in range(1, 10 * MOST_STEPS):
        wobble = 3600 if second == 5 else second % 2
        steps.note(wall + timedelta(seconds=second + wobble), float(second))
    now = 10.0 * MOST_STEPS
    assert steps.back(now, now) >= 3599
    assert steps.forward(now, now) == 1
    assert len(steps._ahead) <= MOST_STEPS + 2


def test_step_before_the_first_reading_counts_from_that_reading_on() -> None:
    host, clock = stepped()
    clock.note_step(20)
    assert clock.span(30) == 50
    host.both(30 + WRITTEN_AFTER)
    assert clock.span(30) == 30


def test_step_of_the_servers_clock_is_seen_and_a_step_of_the_hosts_is_not() -> None:
    host, server = SteppedClock(), SteppedClock()
    clock = DatabaseClock(host, lambda _: server.wall)
    connection: sa.Connection = None  # type: ignore[assignment]  # the source needs none
    clock.read(connection)
    host.wall += AN_HOUR
    assert clock.span(30) == 30
    server.wall += timedelta(seconds=20)
    clock.read(connection)
    assert clock.span(30) == 50


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

    def both(self, seconds: float) -> None:
        """Let time pass for both clocks."""
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds
