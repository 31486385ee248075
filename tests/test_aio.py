"""Helpers on anyio: the error that a task group raises, and the rate limit."""

from __future__ import annotations

import anyio
import pytest

from syncd.aio import RateLimit, task_group
from syncd.errors import DatabaseBusyError, DatabaseReplacedError, DatabaseUnusableError
from tests.helpers.virtual_clock import VirtualClock


async def fail(error: Exception) -> None:
    raise error


async def fail_together(*errors: Exception) -> None:
    async with task_group() as group:
        for error in errors:
            group.start_soon(fail, error)


@pytest.mark.parametrize(
    "kinds",
    [
        (DatabaseUnusableError,),
        (DatabaseReplacedError, DatabaseUnusableError),
        (DatabaseUnusableError, DatabaseReplacedError),
        (DatabaseReplacedError, DatabaseBusyError),
    ],
)
async def test_errors_of_one_family_come_out_as_the_first_of_them(kinds: tuple[type[Exception], ...]) -> None:
    errors = [kind("why") for kind in kinds]
    with pytest.raises(DatabaseUnusableError) as raised:
        await fail_together(*errors)
    assert raised.value in errors


async def test_errors_that_have_nothing_in_common_come_out_together() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await fail_together(DatabaseUnusableError("why"), ValueError("a bug"))
    assert {type(error) for error in raised.value.exceptions} == {DatabaseUnusableError, ValueError}


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


async def test_request_that_is_cancelled_while_it_waits_takes_no_turn() -> None:
    clock = VirtualClock()
    limit = RateLimit(1, clock)
    await limit()
    async with anyio.create_task_group() as clockwork:
        async with anyio.create_task_group() as waiting:
            for _ in range(20):
                waiting.start_soon(limit)
            await anyio.wait_all_tasks_blocked()
            waiting.cancel_scope.cancel()
        clockwork.start_soon(clock.run)
        before = clock.monotonic()
        await limit()
        assert clock.monotonic() - before <= 1
        clockwork.cancel_scope.cancel()
