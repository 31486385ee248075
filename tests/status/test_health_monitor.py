"""Changes of the health: one event for a change that lasts, none for one that does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from structlog.testing import LogCapture

from syncd.errors import SyncdError
from syncd.status.health_monitor import Health, HealthChange, HealthMonitor
from tests.helpers.logs import capturing_logger

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Seen:
    """A problem."""

    code: str
    text: str = "text"
    command: str | None = None


@dataclass(frozen=True)
class State:
    problems: tuple[Seen, ...]


class StoppedClock:
    def now(self) -> datetime:
        return AT

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@dataclass
class SlowClock(StoppedClock):
    """A clock that a test sets; it ends the monitor at its first pause."""

    at: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        raise SyncdError("enough")


@dataclass
class Observed:
    """A monitor over readings that a test gives one after another; None is a reading that failed."""

    changes: list[HealthChange] = field(default_factory=list)
    shown: list[Health] = field(default_factory=list)
    log: LogCapture = field(default_factory=LogCapture)

    async def readings(self, *readings: tuple[Seen, ...] | None) -> list[tuple[bool, bool, list[str]]]:
        given = iter(readings)

        async def read() -> Health:
            problems = next(given)
            if problems is None:
                raise SyncdError("the database does not answer in time")
            return State(problems)

        monitor = HealthMonitor(
            read=read,
            clock=StoppedClock(),
            log=capturing_logger(self.log),
            on_change=self.changes.append,
            on_reading=self.shown.append,
        )
        for _ in readings:
            await monitor.observe()
        return [
            (change.healthy_before, change.healthy, [problem.code for problem in change.problems])
            for change in self.changes
        ]


STALE, DEAD = Seen("mirror_stale", "the mirror is 2 h old", "syncd doctor"), Seen("operations_dead")


async def test_lasting_problem_is_one_change_and_its_end_is_another() -> None:
    seen = await Observed().readings((), (STALE,), (STALE,), (STALE,), (), (), ())
    assert seen == [(True, False, ["mirror_stale"]), (False, True, [])]


async def test_reading_that_is_not_confirmed_changes_nothing() -> None:
    assert await Observed().readings((), (STALE,), (), (STALE,), (), ()) == []


async def test_start_with_a_problem_is_a_change_and_a_start_without_is_not() -> None:
    assert await Observed().readings((), (), ()) == []
    assert await Observed().readings((STALE,), (STALE,)) == [(True, False, ["mirror_stale"])]


async def test_another_problem_is_a_change_and_another_text_is_not() -> None:
    older = Seen("mirror_stale", "the mirror is 3 h old")
    seen = await Observed().readings((STALE,), (STALE,), (older,), (older,), (DEAD, older), (DEAD, older))
    assert seen == [(True, False, ["mirror_stale"]), (False, False, ["operations_dead", "mirror_stale"])]


async def test_problems_that_keep_changing_are_a_change_of_the_health() -> None:
    seen = await Observed().readings((STALE,), (DEAD,), (STALE,))
    assert seen == [(True, False, ["operations_dead"])]


async def test_failed_reading_is_ignored() -> None:
    observed = Observed()
    assert await observed.readings((STALE,), None, (STALE,)) == [(True, False, ["mirror_stale"])]
    assert len(observed.shown) == 2


async def test_change_is_logged_with_its_problems_and_bounded_texts() -> None:
    observed = Observed()
    long = Seen("mirror_stale", "x" * 5000, "syncd doctor")
    await observed.readings((long,), (long,), (), ())
    begin, end = observed.log.entries
    assert (begin["event"], begin["log_level"], begin["healthy"]) == ("health.changed", "warning", False)
    (problem,) = begin["problems"]
    assert (problem["code"], problem["command"], len(problem["text"]) < 1100) == ("mirror_stale", "syncd doctor", True)
    assert (end["log_level"], end["healthy"], end["healthy_before"], end["problems"]) == ("info", True, False, [])


@pytest.mark.parametrize(("seconds", "pause"), [(0.01, 5.0), (0.2, 10.0), (3.0, 15.0)])
async def test_pause_grows_with_the_time_of_a_reading(seconds: float, pause: float) -> None:
    clock = SlowClock()

    async def read() -> Health:
        clock.at += seconds
        return State(())

    monitor = HealthMonitor(read=read, clock=clock, log=capturing_logger(LogCapture()), on_change=lambda _: None)
    with pytest.raises(SyncdError, match="enough"):
        await monitor.run()
    assert clock.pauses == [pause]
