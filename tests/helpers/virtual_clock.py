"""Time in which sleeps take no real time; `harness.open_harness` runs the flows on it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

QUIET_TURNS = 5
"""Turns of an idle event loop before time jumps. One turn misses data on its way through a socket."""
BUSY_SECONDS = 0.01
"""Real seconds between two evaluations of the conditions while something is under way, such as a request that hangs."""
PAUSE_SECONDS = 0.001
"""Real seconds between two evaluations of the conditions while no flow sleeps: the test or another program acts."""


@dataclass(eq=False)
class _Condition:
    """A condition that a test waits for."""

    holds: Callable[[], Awaitable[Any]]
    met: anyio.Event


class VirtualClock:
    """Time that goes on only when all that is left to do is to wait for it.

    The clock jumps to the moment of the first sleeper when no task can run and nothing is under way: no request and no
    transaction (`watched`). Before each jump it evaluates the conditions that tests wait for (`until`), so that time
    stands still as soon as one of them holds. `forward` lets time pass by hand; `step` changes the wall clock alone, as
    an administrator or NTP does.
    """

    def __init__(self) -> None:
        self.at = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
        self.wall_offset = timedelta()
        self.monotonic_offset = 0.0
        self._under_way = self._begun = 0
        self._idle = anyio.Event()
        self._sleepers: list[tuple[datetime, int, anyio.Event]] = []
        self._counter = itertools.count()
        self._conditions: list[_Condition] = []

    def now(self) -> datetime:
        return self.at + self.wall_offset

    def monotonic(self) -> float:
        return self.at.timestamp() + self.monotonic_offset

    def true_time(self) -> float:
        """Return the server's time, which no step of the client's clock changes."""
        return self.at.timestamp()

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back; the monotonic clock and the server's clock go on as before."""
        self.wall_offset += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        event = anyio.Event()
        until = self.at + timedelta(seconds=max(seconds, 0.0))
        entry = (until, next(self._counter), event)
        heapq.heappush(self._sleepers, entry)
        try:
            await event.wait()
        finally:
            if entry in self._sleepers:
                self._sleepers.remove(entry)
                heapq.heapify(self._sleepers)

    async def until(self, holds: Callable[[], Awaitable[Any]]) -> None:
        """Wait until a condition holds; time does not jump past the moment at which it begins to hold."""
        condition = _Condition(holds, anyio.Event())
        self._conditions.append(condition)
        try:
            await condition.met.wait()
        finally:
            self._conditions.remove(condition)

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self._wake()

    def _wake(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self.at:
            heapq.heappop(self._sleepers)[2].set()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let time pass only by hand."""
        self._begin()
        try:
            yield
        finally:
            self._end()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Let time jump although the call that does this is under way, such as a request that hangs."""
        self._end()
        try:
            yield
        finally:
            self._begin()

    def watched(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Count a call as work that is under way, so that time stands still until it is over."""

        async def counted(*args: Any, **kwargs: Any) -> Any:
            with self.standing_still():
                return await call(*args, **kwargs)

        return counted

    def _begin(self) -> None:
        self._begun += 1
        self._under_way += 1
        if self._idle.is_set():
            self._idle = anyio.Event()

    def _end(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    async def run(self) -> None:
        """Jump to the next sleeper whenever nothing else is under way."""
        looked_at: int | None = None
        while True:
            quiet = await self._rest()
            if quiet and looked_at == self._begun:
                looked_at = None
                if self._sleepers:
                    self.at = max(self.at, self._sleepers[0][0])
                    self._wake()
                else:
                    await anyio.sleep(PAUSE_SECONDS)
            else:
                met = await self._met()
                looked_at = self._begun if quiet and not met else None

    async def _rest(self) -> bool:
        """Wait until no task can run and nothing is under way; return False after `BUSY_SECONDS`."""
        ready: Sequence[Any] = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        quiet = 0
        with anyio.move_on_after(BUSY_SECONDS) as scope:
            while quiet < QUIET_TURNS:
                if self._under_way:
                    await self._idle.wait()
                    quiet = 0
                await asyncio.sleep(0)
                quiet = 0 if ready or self._under_way else quiet + 1
        return not scope.cancelled_caught

    async def _met(self) -> bool:
        """Evaluate the conditions, and wake the tests whose condition holds."""
        met = [condition for condition in [*self._conditions] if not condition.met.is_set() and await condition.holds()]
        for condition in met:
            condition.met.set()
        return bool(met)
