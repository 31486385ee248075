"""One limit over all requests."""

from __future__ import annotations

import anyio

from syncd.aio import RateLimit
from tests.world import VirtualClock


async def test_no_second_sees_more_requests_than_allowed_however_many_ask_at_once() -> None:
    clock, sent = VirtualClock(), []
    limit = RateLimit(5, clock)

    async def request() -> None:
        await limit()
        sent.append(clock.monotonic())

    async with anyio.create_task_group() as clockwork:
        clockwork.start_soon(clock.run)
        async with anyio.create_task_group() as group:
            for _ in range(23):
                group.start_soon(request)
        clockwork.cancel_scope.cancel()
    sent.sort()
    assert len(sent) == 23
    assert min(b - a for a, b in zip(sent, sent[5:], strict=False)) >= 0.999
    assert sent[-1] - sent[0] < 22 / 5 + 0.01


async def test_idle_time_is_not_saved_up_for_a_burst() -> None:
    clock = VirtualClock()
    limit = RateLimit(2, clock)
    clock.forward(100)
    await limit()
    async with anyio.create_task_group() as clockwork:
        clockwork.start_soon(clock.run)
        before = clock.monotonic()
        await limit()
        assert clock.monotonic() - before >= 0.499
        clockwork.cancel_scope.cancel()
