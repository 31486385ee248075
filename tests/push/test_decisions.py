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
from tests.helpers.harness import World, world
from tests.push.helpers import SESSIONS, create, effects, finished, until, worked, working

pytestmark = pytest.mark.both_databases


async def decide(w: World, decision: Any, operation_id: int) -> Decided:
    operator = Operator("alice", w.clock.now())
    decided: Decided = await w.database.write(lambda c: decision(c, operation_id, operator))
    return decided


async def test_unknown_operation_that_is_cancelled_during_its_look_up_stays_cancelled(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.sandbox.script("POST", SESSIONS, "lost_after")
        (one,) = await w.enqueue(create())
        await w.push().drain()
        assert (await w.operation(one))["state"] == "unknown"
        asking, go = anyio.Event(), anyio.Event()

        async def wait(_: web.BaseRequest) -> None:
            asking.set()
            await go.wait()

        w.sandbox.script("GET", f"{SESSIONS}/source/", wait)
        async with working(w.push()):
            await asking.wait()
            decided = await decide(w, operation_decisions.cancel, one)
            go.set()
            await until(w, lambda: w.named("operation.fenced"))
        assert (decided.problem, "may have applied it" in str(decided.warning)) == (None, True)
        row = await w.operation(one)
        assert (row["state"], row["result_session_id"]) == ("cancelled", None)
        assert effects(w) == ["s-1"]


async def test_cancelled_unknown_operation_is_not_sent_again_and_frees_its_key(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.sandbox.script("POST", SESSIONS, "lost_before")
        first, second = await w.enqueue(create(), create("s-1", "second"))
        await w.push().drain()
        await decide(w, operation_decisions.cancel, first)
        (row,) = await worked(w, second)
        assert row["state"] == "succeeded"
        assert [one["name"] for one in w.sandbox.live().values()] == ["second"]


async def test_operation_on_hold_is_not_sent_until_it_is_released(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        states = ["pending", "unknown", "running"]
        held = await w.enqueue(*(create(f"s-{n}", state=states[n]) for n in range(3)))
        assert await w.database.write(lambda c: restored.hold_open_operations(c, w.clock.now())) == 3
        (behind, free) = await w.enqueue(create("s-0"), create("free"))
        push = w.push()
        await push.recover(abandoned=True)
        await push.drain()
        w.clock.forward(10_000)
        await push.drain()
        assert effects(w) == ["free"]
        assert [(await w.operation(one))["state"] for one in (*held, behind, free)] == [
            "pending", "unknown", "unknown", "pending", "succeeded",
        ]  # fmt: skip
        assert await w.database.read(lambda c: operations.next_due(c, after=w.clock.now() - timedelta(days=1))) is None
        operator = Operator("alice", w.clock.now())
        assert await w.database.write(lambda c: operation_decisions.release_all(c, operator)) == held
        await worked(w, *held, behind)
        assert sorted(effects(w)) == ["free", "s-0", "s-1", "s-2"]


async def test_release_is_noticed_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (one,) = await w.enqueue(create(on_hold_at=w.clock.now()))
        push = w.push()
        async with working(push):
            await decide(w, operation_decisions.release, one)
            push.wake_up.set()
            (row,) = await finished(w, one)
        assert row["state"] == "succeeded"
