"""Claims: durable before a request leaves, held by a lease, finished by the holder of the fence."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from syncd.aio import AutoResetEvent
from syncd.mirror.store import operations
from syncd.mirror.store.operation import Abandoned, LeaseLostError
from syncd.records.enums import OperationState
from syncd.records.ids import SourceId
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, until, worked, working

pytestmark = pytest.mark.both_databases


def claim(harness: Harness, limit: int = 4, **changes: Any) -> Any:
    return harness.database.write(
        lambda c: operations.claim(c, now=harness.clock.now(), owner="me", lease=60, limit=limit, **changes).operations
    )


async def running(harness: Harness, number: int) -> None:
    """Wait until a number of operations is running."""

    async def holds() -> bool:
        return len(await harness.sql("SELECT id FROM operations WHERE state = 'running'")) >= number

    with anyio.fail_after(20):
        await harness.clock.until(holds)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_claim_is_durable_before_the_request_leaves(tmp_path: Path, method: str) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        seen: list[Any] = []

        async def look(_: web.BaseRequest) -> None:  # on a connection that sees only what is committed
            rows = await harness.sql(
                "SELECT state, attempts, fence, lease_until > '2026-01-01' AS leased FROM operations"
            )
            seen.extend(tuple(row.values()) for row in rows)

        harness.sandbox.script(method, SESSIONS, look)
        await harness.enqueue(create() if method == "POST" else {"kind": "delete", "session_id": "SES1"})
        await harness.push().drain()
        assert seen == [("running", 1, 1, 1)]


async def test_batch_never_holds_two_operations_of_one_key(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(*(create(f"s-{n % 3}") for n in range(9)))
        assert [operation.source_session_id for operation in await claim(harness, limit=9)] == ["s-0", "s-1", "s-2"]
        assert await claim(harness, limit=9) == []


async def test_request_is_not_sent_after_the_lease_ran_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness(tmp_path) as harness:
        push = harness.push()
        monkeypatch.setattr(push._leases, "hold", anyio.sleep_forever)  # nothing makes it unknown meanwhile
        harness.sandbox.script("GET", f"{SESSIONS}/source/", lambda _: harness.clock.step(86400))
        (operation_id,) = await harness.enqueue(create())
        await push.drain()
        assert effects(harness) == []
        assert harness.asked("POST") == []
        assert harness.named("operation.fenced")
        (row,) = await worked(harness, operation_id)
        assert (row["state"], effects(harness)) == ("succeeded", ["s-1"])


async def test_holder_that_lost_its_fence_cannot_finish(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(create())
        (mine,) = await claim(harness)
        harness.clock.forward(61)
        assert await harness.database.write(
            lambda c: operations.recover(c, now=harness.clock.now(), abandoned=False)
        ) == [Abandoned(mine.id, SourceId("s-1"))]
        with pytest.raises(LeaseLostError):
            await harness.database.write(
                lambda c: operations.end_claim(c, mine, OperationState.DEAD, finished_at=harness.clock.now())
            )
        assert (await harness.operation(mine.id))["state"] == "unknown"


async def test_expired_lease_is_recovered_while_the_queue_runs(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(create())
        (mine,) = await claim(harness)
        (row,) = await worked(harness, mine.id)
        assert (row["state"], effects(harness)) == ("succeeded", ["s-1"])
        assert harness.named("operation.unknown")


async def test_claim_with_a_valid_lease_is_not_recovered(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(create())
        (mine,) = await claim(harness)
        harness.clock.forward(59)
        assert (
            await harness.database.write(lambda c: operations.recover(c, now=harness.clock.now(), abandoned=False))
            == []
        )
        assert (await harness.operation(mine.id))["state"] == "running"


async def test_abandoned_claims_become_unknown_at_the_start(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(create())
        (mine,) = await claim(harness)
        await harness.push().recover(abandoned=True)
        assert (await harness.operation(mine.id))["state"] == "unknown"
        (row,) = await worked(harness, mine.id)
        assert row["state"] == "succeeded"


async def test_heartbeat_prolongs_the_lease_of_a_long_request(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        go = anyio.Event()

        async def wait(_: web.BaseRequest) -> None:
            with harness.clock.going_on():
                await go.wait()

        harness.sandbox.script("GET", f"{SESSIONS}/source/", wait)
        (operation_id,) = await harness.enqueue(create())
        async with working(harness.push()):
            await until(harness, lambda: harness.sandbox.requests)
            for _ in range(6):
                before = (await harness.operation(operation_id))["lease_until"]

                async def prolonged(before: datetime = before) -> bool:
                    return bool((await harness.operation(operation_id))["lease_until"] > before)

                with anyio.fail_after(20):
                    await harness.clock.until(prolonged)
            go.set()
            (row,) = await finished(harness, operation_id)
        assert (row["state"], row["fence"], len(harness.asked("POST"))) == ("succeeded", 1, 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_stop_during_a_post_is_unknown_at_once_and_during_a_lookup_costs_nothing(
    tmp_path: Path, method: str
) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script(method, SESSIONS, "hang_after")
        (operation_id,) = await harness.enqueue(create())
        async with anyio.create_task_group() as group:
            group.start_soon(harness.push().run)
            await until(harness, lambda: any(request.method == method for request in harness.sandbox.requests))
            group.cancel_scope.cancel()
        row = await harness.operation(operation_id)
        assert (row["state"], row["attempts"]) == (("unknown", 1) if method == "POST" else ("pending", 0))
        assert not harness.named("operation.retrying")
        (row,) = await worked(harness, operation_id)
        assert (row["state"], effects(harness)) == ("succeeded", ["s-1"])


async def test_no_more_operations_than_allowed_send_requests_although_more_are_claimed_ahead(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        go, asking = anyio.Event(), set[str]()
        most = 0

        async def wait(request: web.BaseRequest) -> None:
            nonlocal most
            asking.add(request.path)
            most = max(most, len(asking))
            await go.wait()
            asking.discard(request.path)

        harness.sandbox.script("GET", f"{SESSIONS}/source/", wait, times=30)
        ids = await harness.enqueue(*(create(f"s-{n}") for n in range(30)))
        async with working(harness.push(concurrency=8)):
            await until(harness, lambda: most == 8)
            await running(harness, 10)
            assert len(harness.sandbox.requests) == 8
            go.set()
            await finished(harness, *ids)
        assert most == 8


async def test_operation_claimed_ahead_gives_its_claim_back_when_the_daemon_stops(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        go = anyio.Event()

        async def wait(_: web.BaseRequest) -> None:
            await go.wait()

        harness.sandbox.script("GET", f"{SESSIONS}/source/", wait, times=4)
        await harness.enqueue(*(create(f"s-{n}") for n in range(6)))
        push = harness.push(concurrency=4)
        async with working(push):
            await running(harness, 5)
            await until(harness, lambda: len(harness.sandbox.requests) == 4)
            push.stop()
            go.set()
        rows = await harness.sql("SELECT state, attempts FROM operations ORDER BY id")
        assert [(row["state"], row["attempts"]) for row in rows] == [("succeeded", 1)] * 4 + [("pending", 0)] * 2
        assert not harness.named("operation.retrying")
        assert [event["log_level"] for event in harness.named("operation.returned")] == ["debug"]


async def test_not_before_is_honoured(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql(
            "INSERT INTO operations (kind, source_session_id, name, not_before) "
            "VALUES ('create', 's-1', 'n', '2026-06-01T13:00:00Z')"
        )
        await harness.push().drain()
        assert len(harness.sandbox.requests) == 0
        await worked(harness, 1)
        assert harness.sandbox.requests[0].at >= harness.clock.at.replace(hour=13, minute=0, second=0).timestamp()


async def test_blocked_operation_that_is_due_does_not_cause_a_busy_loop(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, 422)
        await harness.enqueue(create(), create(name="behind", next_attempt_at=harness.clock.now()))
        push = harness.push()
        await push.drain()
        looks = 0
        inner = harness.database.read

        async def counted(work: Any) -> Any:
            nonlocal looks
            looks += 1
            return await inner(work)

        harness.database.read = counted  # type: ignore[method-assign]
        began = harness.clock.monotonic()
        async with working(push):
            await until(harness, lambda: harness.clock.monotonic() > began + 600)
        assert looks <= 600 / 20 + 5


async def test_lookups_and_new_operations_take_turns(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(
            *(create(f"u-{n}", state="unknown", unknown_since=harness.clock.now()) for n in range(50))
        )
        await harness.enqueue(*(create(f"s-{n}") for n in range(50)))
        taken = [(await claim(harness, limit=1, lookups_first=turn % 2 == 0))[0].state for turn in range(10)]
        assert taken == ["unknown", "running"] * 5


async def test_event_set_again_by_a_waiting_task_is_not_lost() -> None:
    event, received = AutoResetEvent(), []

    async def listen(name: str) -> None:
        await event.wait()
        received.append(name)
        if name == "a":
            event.set()  # after a task that waits has reset the event, and before the other has gone on

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(listen, "a")
            group.start_soon(listen, "b")
            await anyio.wait_all_tasks_blocked()
            event.set()
        await event.wait()
    assert sorted(received) == ["a", "b"]


async def test_event_set_before_a_wait_wakes_it_once() -> None:
    event = AutoResetEvent()
    event.set()
    event.set()
    with anyio.fail_after(5):
        await event.wait(1000)
    with anyio.move_on_after(0.01) as scope:
        await event.wait()
    assert scope.cancelled_caught
