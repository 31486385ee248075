"""A delete that succeeded and is contradicted by a listing after the grace is queued again, exactly once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.mirror.store import identity, restored
from syncd.rules.identity import Identity
from syncd.tenant_change import accept_tenant
from tests.helpers.harness import World, world
from tests.push.helpers import SESSIONS, create, worked

pytestmark = pytest.mark.both_databases

GRACE = 60.0


def confirming_without_deleting(w: World, times: int = 100) -> None:
    w.guard = type(w.guard)(grace=GRACE, confirmations=2, max_count=25, max_fraction=0.05)
    w.sandbox.script("DELETE", SESSIONS, lambda _: web.Response(status=204), times=times)


async def deletes(w: World) -> list[dict[str, Any]]:
    return await w.sql("SELECT id, state, session_id, requested_by FROM operations WHERE kind = 'delete' ORDER BY id")


async def pass_after(w: World, seconds: float) -> None:
    w.clock.forward(seconds)
    assert (await w.one_pass()).state == "complete"


@pytest.mark.parametrize("key", ["session_id", "source_session_id"])
async def test_listed_session_is_deleted_once_more(tmp_path: Path, key: str) -> None:
    async with world(tmp_path, sessions=3) as w:
        confirming_without_deleting(w, times=1)
        await w.one_pass()
        ids = {"session_id": "SES1", "source_session_id": w.sandbox.live()["SES1"]["sourceSessionId"]}
        (one,) = await w.enqueue({"kind": "delete", key: ids[key]})
        await worked(w, one)
        await pass_after(w, GRACE / 2)
        assert len(await deletes(w)) == 1, "listings lag"
        await pass_after(w, GRACE)
        _, again = await deletes(w)
        assert again["session_id"] == "SES1"
        assert again["requested_by"] == f"syncd: operation {one} was contradicted by a listing"
        (event,) = w.named("operation.contradicted")
        assert (event["operation_id"], event["session_id"], event["requeued_as"]) == (one, "SES1", again["id"])
        await worked(w, again["id"])
        assert "SES1" not in w.there()
        await pass_after(w, GRACE + 1)
        assert await w.live() == w.there()
        assert len(await deletes(w)) == 2


async def test_delete_is_queued_again_only_once(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        confirming_without_deleting(w)
        await w.one_pass()
        await w.enqueue({"kind": "delete", "session_id": "SES1"})
        for _ in range(5):
            await w.push().drain()
            await pass_after(w, GRACE + 1)
        assert [row["state"] for row in await deletes(w)] == ["succeeded", "succeeded"]
        first, second = w.named("operation.contradicted")
        assert (first["requeued_as"], second["operation_id"], second["requeued_as"]) == (2, 2, None)
        assert "SES1" in await w.live()


async def test_repetition_that_an_operator_cancels_is_not_queued_again(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        confirming_without_deleting(w)
        await w.one_pass()
        await w.enqueue({"kind": "delete", "session_id": "SES1"})
        await w.push().drain()
        await pass_after(w, GRACE + 1)
        await w.sql("UPDATE operations SET state = 'cancelled', finished_at = requested_at WHERE id = 2")
        await w.sql("UPDATE sessions SET deleted_at = valid_from, change = 'deleted' WHERE id = 'SES1'")
        await pass_after(w, GRACE + 1)
        assert len(await deletes(w)) == 2
        assert "SES1" in await w.live()


async def test_session_that_the_mirror_never_saw_counts_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.sandbox.create(source_session_id="s", name="n")
        confirming_without_deleting(w)
        await w.enqueue({"kind": "delete", "session_id": "SES1"})
        await w.push().drain()
        await pass_after(w, GRACE + 1)
        assert len(await deletes(w)) == 2
        assert len(w.named("operation.contradicted")) == 1


async def test_session_that_was_gone_and_is_restored_in_albert_stays(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        w.guard = type(w.guard)(grace=GRACE, confirmations=2, max_count=25, max_fraction=0.05)
        await w.one_pass()
        (one,) = await w.enqueue(create("s"))
        await w.push().drain()
        session_id = (await w.operation(one))["result_session_id"]
        await w.enqueue({"kind": "delete", "session_id": session_id})
        await w.push().drain()
        await pass_after(w, GRACE + 1)
        w.sandbox.create(source_session_id="s", name="restored", id=session_id)
        await pass_after(w, GRACE + 1)
        assert session_id in await w.live()
        assert w.named("session.restored")
        assert (len(await deletes(w)), w.named("operation.contradicted")) == (1, [])


async def test_session_deleted_by_a_sweep_is_not_a_contradiction(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=30) as w:
        w.guard = type(w.guard)(grace=0, confirmations=1, max_count=25, max_fraction=0.05)
        await w.one_pass()
        gone = w.sandbox.delete("SES1")
        await pass_after(w, 1)
        assert "SES1" not in await w.live()
        w.sandbox.create(source_session_id=gone["sourceSessionId"], name="back", id="SES1")
        await pass_after(w, 1)
        assert "SES1" in await w.live()
        assert await deletes(w) == []


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_step_of_the_clock_deletes_no_session_that_was_restored(tmp_path: Path, step: float) -> None:
    async with world(tmp_path, sessions=3) as w:
        w.guard = type(w.guard)(grace=GRACE, confirmations=2, max_count=25, max_fraction=0.05)
        await w.one_pass()
        gone = w.sandbox.live()["SES1"]
        await w.enqueue({"kind": "delete", "session_id": "SES1"})
        await w.push().drain()
        w.clock.step(step)
        await pass_after(w, GRACE + 1)
        w.sandbox.create(source_session_id=gone["sourceSessionId"], name="restored", id="SES1")
        await pass_after(w, GRACE + 1)
        assert "SES1" in w.there()
        await w.push().drain()
        assert "SES1" in w.there()


async def start_as_a_backup(w: World) -> None:
    await w.sql("INSERT INTO mirror_identity (id, copied_at) VALUES (1, '2026-06-01T12:00:00.000000Z')")
    assert await w.database.write(lambda c: restored.hold_operations_of_copy(c, w.clock.now())) == 0


async def accept_another_tenant(w: World) -> None:
    await w.database.write(lambda c: identity.pin(c, Identity("https://a.example"), w.clock.now()))
    await accept_tenant(w.database, None, Identity("https://b.example"), by="alice")


@pytest.mark.parametrize("change", [start_as_a_backup, accept_another_tenant])
@pytest.mark.parametrize("step", [0, -3600])
async def test_delete_of_a_backup_or_of_another_tenant_is_not_repeated(
    tmp_path: Path, change: Callable[[World], Awaitable[None]], step: float
) -> None:
    async with world(tmp_path, sessions=3) as w:
        confirming_without_deleting(w, times=1)
        await w.one_pass()
        (one,) = await w.enqueue({"kind": "delete", "session_id": "SES1"})
        await worked(w, one)
        w.clock.step(step)
        await change(w)
        w.clock.step(-step)
        await pass_after(w, GRACE * 2)
        await pass_after(w, GRACE * 2)  # after a clock was set back, a listing counts a minute later
        assert await w.live() == w.there()
        assert [row["id"] for row in await deletes(w)] == [one]
        assert w.named("operation.contradicted") == []
