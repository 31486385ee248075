"""Waiting for Albert: one event when it has lasted, one at its end, from the outcomes of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from structlog.testing import LogCapture

from syncd.albert.errors import AlbertConnectError, AlbertTimeoutError
from syncd.clock import Clock
from syncd.sandbox import Habits, Sandbox, serve
from syncd.status.reachability import Reachability
from tests.helpers.logs import capturing_logger
from tests.processes.helpers import SECRET, at_work, eventually

DOWN = AlbertConnectError("no connection to albert.example.com:443: Connection refused")


@dataclass
class Timers:
    """A clock whose timers run when time passes by hand."""

    at: float = 100.0
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime(2026, 6, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, _seconds: float) -> None:
        raise NotImplementedError

    def schedule(self, seconds: float, work: Callable[[], None]) -> asyncio.TimerHandle:
        timer = (self.at + seconds, work)
        self.timers.append(timer)

        class Handle:
            def cancel(_self) -> None:  # noqa: N805 - `self` is the test's
                self.timers[:] = [other for other in self.timers if other is not timer]

        return cast("asyncio.TimerHandle", Handle())

    def forward(self, seconds: float) -> None:
        self.at += seconds
        for timer in [candidate for candidate in self.timers if candidate[0] <= self.at]:
            self.timers.remove(timer)
            timer[1]()


@dataclass
class Watched:
    timers: Timers = field(default_factory=Timers)
    log: LogCapture = field(default_factory=LogCapture)

    def __post_init__(self) -> None:
        self.reachability = Reachability(
            clock=cast("Clock", self.timers),
            log=capturing_logger(self.log),
            schedule=self.timers.schedule,
        )

    def ended(self, outcome: int | BaseException, *, method: str = "GET", seconds: float = 0.0) -> None:
        self.reachability.observe_request(method, outcome, seconds)

    def events(self) -> list[tuple[Any, ...]]:
        return [(e["event"], e["log_level"], e["seconds"], e.get("reason")) for e in self.log.entries]


def test_wait_of_thirty_seconds_is_logged_once_and_so_is_its_end() -> None:
    watched = Watched()
    for _ in range(40):
        watched.ended(DOWN)
        watched.timers.forward(1.0)
    watched.ended(200)
    watched.ended(200)
    assert watched.events() == [
        ("albert.unreachable", "info", 30.0, str(DOWN)),
        ("albert.reachable", "info", 40.0, None),
    ]


def test_wait_is_logged_on_time_although_no_request_ends_meanwhile() -> None:
    watched = Watched()
    watched.ended(429)
    watched.timers.forward(30.0)
    assert watched.events() == [("albert.unreachable", "info", 30.0, "the answer is 429 Too Many Requests")]


def test_shorter_wait_is_not_logged() -> None:
    watched = Watched()
    for outcome in (DOWN, 404, 503, 200):
        watched.ended(outcome)
        watched.timers.forward(29.0)
    watched.timers.forward(100.0)
    assert watched.events() == []


def test_time_of_a_request_without_an_answer_belongs_to_the_wait() -> None:
    watched = Watched()
    watched.ended(AlbertTimeoutError("no whole answer within 30 seconds"), seconds=30.0)
    watched.timers.forward(0.0)
    assert watched.events() == [("albert.unreachable", "info", 30.0, "no whole answer within 30 seconds")]


def test_wait_begins_after_the_last_answer_to_another_request() -> None:
    watched = Watched()
    watched.timers.forward(20.0)
    watched.ended(200)
    watched.timers.forward(10.0)
    watched.ended(AlbertTimeoutError("late"), seconds=30.0)
    watched.timers.forward(19.0)
    assert watched.events() == []
    watched.timers.forward(1.0)
    assert [event[2] for event in watched.events()] == [30.0]


def test_refusals_are_answers_and_cancelled_requests_say_nothing() -> None:
    watched = Watched()
    for outcome in (401, 403, 404, asyncio.CancelledError()):
        watched.ended(outcome)
        watched.timers.forward(40.0)
    watched.ended(DOWN)
    watched.timers.forward(20.0)
    watched.ended(asyncio.CancelledError())
    watched.timers.forward(10.0)
    assert [event[0] for event in watched.events()] == ["albert.unreachable"]


def test_server_error_for_a_change_does_not_make_albert_unreachable() -> None:
    watched = Watched()
    watched.ended(500, method="POST")
    watched.timers.forward(100.0)
    assert watched.events() == []


SOONER = {"syncd.status.reachability.SECONDS_UNREACHABLE": 0.2}
"""Seconds after which Albert is unreachable."""


async def test_pass_that_waits_for_albert_logs_the_wait_and_its_end(tmp_path: Path) -> None:
    server = Sandbox(30, habits=Habits(page_size=10), token=SECRET)
    async with serve(server), at_work(tmp_path, server) as syncd:
        server.script("GET", "/api/v3/chats/sessions", 503, times=1000)
        syncd.constants |= SOONER
        daemon = await syncd.run(SYNCD_RETRY_MAX="0.2")
        waiting = await daemon.event("albert.unreachable")
        assert (waiting["level"], waiting["reason"]) == ("info", "the answer is 503 Service Unavailable")
        await eventually(lambda: len(server.requests) >= 6)
        server.scripts._waiting.clear()
        assert (await daemon.event("albert.reachable"))["seconds"] >= 0.2
        await daemon.event("pass.complete")
        assert [len(daemon.events(f"albert.{name}")) for name in ("unreachable", "reachable")] == [1, 1]
        assert await daemon.stop() == 0


async def test_once_logs_the_wait_for_albert_too(tmp_path: Path) -> None:
    server = Sandbox(30, habits=Habits(page_size=10), token=SECRET)
    async with serve(server), at_work(tmp_path, server) as syncd:
        server.script("GET", "/api/v3/chats/sessions", "error_503_retry_after", times=1)
        syncd.constants |= SOONER
        once = await syncd.start("once")
        assert await once.code() == 0
        assert once.events("albert.unreachable")
        assert once.events("albert.reachable")
