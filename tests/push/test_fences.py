"""Only the holder of the fence sends a request and finishes an operation, and only to the database of its claim."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from syncd.clock import utc_text
from syncd.errors import DatabaseUnusableError
from syncd.mirror.store import operations
from syncd.mirror.store.operation import LeaseLostError, Operation, Success
from syncd.push import record
from syncd.push.outcomes import Effect, Succeeded
from syncd.push.record import Completion
from syncd.records import fields
from syncd.records.ids import SessionId
from syncd.records.items import read_item
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, until, working

pytestmark = pytest.mark.both_databases

KINDS: dict[str, dict[str, Any]] = {
    "POST": create(),
    "DELETE": {"kind": "delete", "source_session_id": "old"},
    "PATCH": {"kind": "update", "source_session_id": "old", "name": "new"},
}


async def claim(harness: Harness, limit: int) -> list[Operation]:
    def work(connection: Any) -> list[Operation]:
        return operations.claim(connection, now=harness.clock.now(), owner="test", lease=60, limit=limit).operations

    return await harness.database.write(work)


@pytest.mark.parametrize("method", KINDS)
async def test_holder_that_lost_its_claim_sends_nothing_after_the_next_renewal(tmp_path: Path, method: str) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="old", name="old")
        looked_up, answer = anyio.Event(), anyio.Event()

        async def slow(_: web.BaseRequest) -> None:
            looked_up.set()
            await answer.wait()

        harness.sandbox.script("GET", f"{SESSIONS}/source/", slow)
        (operation_id,) = await harness.enqueue(KINDS[method])
        push = harness.push()
        async with working(push):
            await looked_up.wait()
            await harness.sql("UPDATE operations SET fence = fence + 1, lease_owner = 'another daemon'")
            await push._leases.renew()
            answer.set()
            await until(harness, lambda: harness.named("operation.fenced"))
        assert harness.asked(method) == []
        assert (await harness.operation(operation_id))["lease_owner"] == "another daemon"


@pytest.mark.sqlite
@pytest.mark.parametrize("row", [create(), {"kind": "delete", "session_id": "SES1"}])
async def test_nothing_is_sent_after_the_database_of_the_claim_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="old", name="old")
        await harness.enqueue(row)
        push = harness.push(concurrency=1)  # no claim looks at the database meanwhile

        def replaced() -> bool:
            shutil.copy(harness.database.path, tmp_path / "copy.db")
            (tmp_path / "copy.db").replace(harness.database.path)
            return True

        monkeypatch.setattr(push._runner, "may_send", replaced)  # the last step before the attempt
        with pytest.raises(DatabaseUnusableError):
            await push.drain()
        assert harness.asked("POST") == harness.asked("DELETE") == []


async def test_finish_of_several_operations_needs_the_fence_of_each(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(create("s-1"), create("s-2"))
        claimed = await claim(harness, 2)
        await harness.sql("UPDATE operations SET fence = fence + 1 WHERE id = ?", claimed[1].id)
        successes = [
            Success(operation, SessionId("SES1"), utc_text(harness.clock.now()), None, 201) for operation in claimed
        ]
        with pytest.raises(LeaseLostError):
            await harness.database.write(lambda c: operations.finish(c, successes))
        assert {row["state"] for row in await harness.sql("SELECT state FROM operations")} == {"running"}


async def test_batch_with_a_lost_claim_records_the_others(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(*(create(f"s-{n}") for n in range(3)))
        claimed = await claim(harness, 3)
        await harness.sql("UPDATE operations SET fence = fence + 1 WHERE id = ?", claimed[1].id)
        lost = []

        async def one_record(operation: Operation) -> None:
            wire = harness.sandbox.create(source_session_id=operation.source_session_id or "", name="wanted")
            row = read_item(wire, fields.SESSIONS)
            outcome = Succeeded(row.id, Effect(utc_text(harness.clock.now()), (row,), made=True), status=201)
            done = Completion(operation, outcome, harness.clock.now(), harness.push_settings.retry_policy, 1.0, 60.0)
            try:
                await harness.database.write_batched(record.write_all, done)
            except LeaseLostError:
                lost.append(operation.id)

        async with anyio.create_task_group() as group:
            for operation in claimed:
                group.start_soon(one_record, operation)
        assert lost == [claimed[1].id]
        rows = await harness.sql("SELECT state FROM operations ORDER BY id")
        assert [row["state"] for row in rows] == ["succeeded", "running", "succeeded"]
        assert len(await harness.live()) == 2
        assert len(effects(harness)) == 3
