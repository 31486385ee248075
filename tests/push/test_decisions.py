"""Decisions of an operator take effect in the running queue and are not overwritten."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from syncd.mirror.store import operation_decisions, operations, restored
from syncd.mirror.store.operation_decisions import Decided, Operator
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, until, worked, working

pytestmark = pytest.mark.both_databases


async def decide(harness: Harness, decision: Any, operation_id: int) -> Decided:
    operator = Operator("alice", harness.clock.now())
    decided: Decided = await harness.database.write(lambda c: decision(c, operation_id, operator))
    return decided


async def test_unknown_operation_that_is_cancelled_during_its_look_up_stays_cancelled(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, "lost_after")
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        assert (await harness.operation(operation_id))["state"] == "unknown"
        asking, go = anyio.Event(), anyio.Event()

        async def wait(_: web.BaseRequest) -> None:
            asking.set()
            await go.wait()

        harness.sandbox.script("GET", f"{SESSIONS}/source/", wait)
        async with working(harness.push()):
            await asking.wait()
            decided = await decide(harness, operation_decisions.cancel, operation_id)
            go.set()
            await until(harness, lambda: harness.named("operation.fenced"))
        assert (decided.problem, "may have applied it" in str(decided.warning)) == (None, True)
        row = await harness.operation(operation_id)
        assert (row["state"], row["result_session_id"]) == ("cancelled", None)
        assert effects(harness) == ["s-1"]


async def test_cancelled_unknown_operation_is_not_sent_again_and_frees_its_key(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, "lost_before")
        first, second = await harness.enqueue(create(), create("s-1", "second"))
        await harness.push().drain()
        await decide(harness, operation_decisions.cancel, first)
        (row,) = await worked(harness, second)
        assert row["state"] == "succeeded"
        assert [wire["name"] for wire in harness.sandbox.live().values()] == ["second"]


async def test_operation_on_hold_is_not_sent_until_it_is_released(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        states = ["pending", "unknown", "running"]
        held = await harness.enqueue(*(create(f"s-{n}", state=states[n]) for n in range(3)))
        assert await harness.database.write(lambda c: restored.hold_open_operations(c, harness.clock.now())) == 3
        (behind, free) = await harness.enqueue(create("s-0"), create("free"))
        push = harness.push()
        await push.recover(abandoned=True)
        await push.drain()
        harness.clock.forward(10_000)
        await push.drain()
        assert effects(harness) == ["free"]
        assert [(await harness.operation(operation_id))["state"] for operation_id in (*held, behind, free)] == [
            "pending", "unknown", "unknown", "pending", "succeeded",
        ]  # fmt: skip
        assert (
            await harness.database.read(lambda c: operations.next_due(c, after=harness.clock.now() - timedelta(days=1)))
            is None
        )
        operator = Operator("alice", harness.clock.now())
        assert await harness.database.write(lambda c: operation_decisions.release_all(c, operator)) == held
        await worked(harness, *held, behind)
        assert sorted(effects(harness)) == ["free", "s-0", "s-1", "s-2"]


async def test_release_is_noticed_at_once(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (operation_id,) = await harness.enqueue(create(on_hold_at=harness.clock.now()))
        push = harness.push()
        async with working(push):
            await decide(harness, operation_decisions.release, operation_id)
            push.wake_up.set()
            (row,) = await finished(harness, operation_id)
        assert row["state"] == "succeeded"
