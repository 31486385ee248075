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
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, worked

pytestmark = pytest.mark.both_databases

GRACE = 60.0


def confirming_without_deleting(harness: Harness, times: int = 100) -> None:
    harness.guard = type(harness.guard)(grace=GRACE, confirmations=2, max_count=25, max_fraction=0.05)
    harness.sandbox.script("DELETE", SESSIONS, lambda _: web.Response(status=204), times=times)


async def deletes(harness: Harness) -> list[dict[str, Any]]:
    return await harness.sql(
        "SELECT id, state, session_id, requested_by FROM operations WHERE kind = 'delete' ORDER BY id"
    )


async def pass_after(harness: Harness, seconds: float) -> None:
    harness.clock.forward(seconds)
    assert (await harness.one_pass()).state == "complete"


@pytest.mark.parametrize("key", ["session_id", "source_session_id"])
async def test_listed_session_is_deleted_once_more(tmp_path: Path, key: str) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        confirming_without_deleting(harness, times=1)
        await harness.one_pass()
        ids = {"session_id": "SES1", "source_session_id": harness.sandbox.live()["SES1"]["sourceSessionId"]}
        (operation_id,) = await harness.enqueue({"kind": "delete", key: ids[key]})
        await worked(harness, operation_id)
        await pass_after(harness, GRACE / 2)
        assert len(await deletes(harness)) == 1, "listings lag"
        await pass_after(harness, GRACE)
        _, again = await deletes(harness)
        assert again["session_id"] == "SES1"
        assert again["requested_by"] == f"syncd: operation {operation_id} was contradicted by a listing"
        (event,) = harness.named("operation.contradicted")
        assert (event["operation_id"], event["session_id"], event["requeued_as"]) == (operation_id, "SES1", again["id"])
        await worked(harness, again["id"])
        assert "SES1" not in harness.there()
        await pass_after(harness, GRACE + 1)
        assert await harness.live() == harness.there()
        assert len(await deletes(harness)) == 2


async def test_delete_is_queued_again_only_once(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        confirming_without_deleting(harness)
        await harness.one_pass()
        await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        for _ in range(5):
            await harness.push().drain()
            await pass_after(harness, GRACE + 1)
        assert [row["state"] for row in await deletes(harness)] == ["succeeded", "succeeded"]
        first, second = harness.named("operation.contradicted")
        assert (first["requeued_as"], second["operation_id"], second["requeued_as"]) == (2, 2, None)
        assert "SES1" in await harness.live()


async def test_repetition_that_an_operator_cancels_is_not_queued_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        confirming_without_deleting(harness)
        await harness.one_pass()
        await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        await harness.push().drain()
        await pass_after(harness, GRACE + 1)
        await harness.sql("UPDATE operations SET state = 'cancelled', finished_at = requested_at WHERE id = 2")
        await harness.sql("UPDATE sessions SET deleted_at = valid_from, change = 'deleted' WHERE id = 'SES1'")
        await pass_after(harness, GRACE + 1)
        assert len(await deletes(harness)) == 2
        assert "SES1" in await harness.live()


async def test_session_that_the_mirror_never_saw_counts_too(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="s", name="n")
        confirming_without_deleting(harness)
        await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        await harness.push().drain()
        await pass_after(harness, GRACE + 1)
        assert len(await deletes(harness)) == 2
        assert len(harness.named("operation.contradicted")) == 1


async def test_session_that_was_gone_and_is_restored_in_albert_stays(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        harness.guard = type(harness.guard)(grace=GRACE, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        (operation_id,) = await harness.enqueue(create("s"))
        await harness.push().drain()
        session_id = (await harness.operation(operation_id))["result_session_id"]
        await harness.enqueue({"kind": "delete", "session_id": session_id})
        await harness.push().drain()
        await pass_after(harness, GRACE + 1)
        harness.sandbox.create(source_session_id="s", name="restored", id=session_id)
        await pass_after(harness, GRACE + 1)
        assert session_id in await harness.live()
        assert harness.named("session.restored")
        assert (len(await deletes(harness)), harness.named("operation.contradicted")) == (1, [])


async def test_session_deleted_by_a_sweep_is_not_a_contradiction(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=30) as harness:
        harness.guard = type(harness.guard)(grace=0, confirmations=1, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        gone = harness.sandbox.delete("SES1")
        await pass_after(harness, 1)
        assert "SES1" not in await harness.live()
        harness.sandbox.create(source_session_id=gone["sourceSessionId"], name="back", id="SES1")
        await pass_after(harness, 1)
        assert "SES1" in await harness.live()
        assert await deletes(harness) == []


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_step_of_the_clock_deletes_no_session_that_was_restored(tmp_path: Path, step: float) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        harness.guard = type(harness.guard)(grace=GRACE, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        gone = harness.sandbox.live()["SES1"]
        await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        await harness.push().drain()
        harness.clock.step(step)
        await pass_after(harness, GRACE + 1)
        harness.sandbox.create(source_session_id=gone["sourceSessionId"], name="restored", id="SES1")
        await pass_after(harness, GRACE + 1)
        assert "SES1" in harness.there()
        await harness.push().drain()
        assert "SES1" in harness.there()


async def start_as_a_backup(harness: Harness) -> None:
    await harness.sql("INSERT INTO mirror_identity (id, copied_at) VALUES (1, '2026-06-01T12:00:00.000000Z')")
    assert await harness.database.write(lambda c: restored.hold_operations_of_copy(c, harness.clock.now())) == 0


async def accept_another_tenant(harness: Harness) -> None:
    await harness.database.write(lambda c: identity.pin(c, Identity("https://a.example"), harness.clock.now()))
    await accept_tenant(harness.database, None, Identity("https://b.example"), by="alice")


@pytest.mark.parametrize("change", [start_as_a_backup, accept_another_tenant])
@pytest.mark.parametrize("step", [0, -3600])
async def test_delete_of_a_backup_or_of_another_tenant_is_not_repeated(
    tmp_path: Path, change: Callable[[Harness], Awaitable[None]], step: float
) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        confirming_without_deleting(harness, times=1)
        await harness.one_pass()
        (operation_id,) = await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        await worked(harness, operation_id)
        harness.clock.step(step)
        await change(harness)
        harness.clock.step(-step)
        await pass_after(harness, GRACE * 2)
        await pass_after(harness, GRACE * 2)  # after a clock was set back, a listing counts a minute later
        assert await harness.live() == harness.there()
        assert [row["id"] for row in await deletes(harness)] == [operation_id]
        assert harness.named("operation.contradicted") == []
