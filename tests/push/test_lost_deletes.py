"""Deletes whose answer was lost: their sessions may be gone, so they are no evidence, and the last ones end too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from pyroaring import BitMap64

from syncd.mirror.store import missing
from syncd.mirror.store.passes import Progress
from syncd.records.enums import PassReason
from syncd.records.ids import PassId
from tests.helpers.harness import Harness, open_harness
from tests.pull.test_first_request import move_to_another_tenant
from tests.pull.test_known_tenant import changes, guarded
from tests.push.helpers import SESSIONS, finished, until, working

pytestmark = pytest.mark.both_databases

BY_ID: list[dict[str, Any]] = [{"kind": "delete", "session_id": f"SES{n}"} for n in (1, 2, 3)]


def by_source(harness: Harness) -> list[dict[str, Any]]:
    return [
        {"kind": "delete", "source_session_id": wire["sourceSessionId"]} for wire in harness.sandbox.live().values()
    ]


async def work_to_the_end(harness: Harness, ids: list[int]) -> list[str]:
    """Let a new process work, take a pass, and work again, until all operations are final."""
    for _ in range(5):
        async with working(guarded(harness)[1]):
            with anyio.move_on_after(2):
                await finished(harness, *ids)
        harness.clock.forward(300)
        await harness.one_pass()
    return [(await harness.operation(operation_id))["state"] for operation_id in ids]


@pytest.mark.parametrize("fault", ["lost_after", "error_500_after"])
@pytest.mark.parametrize("named", ["by id", "by source id"])
async def test_deletes_that_empty_a_tenant_succeed_although_every_answer_is_lost(
    tmp_path: Path, fault: Any, named: str
) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("DELETE", SESSIONS, fault, times=3)
        ids = await harness.enqueue(*(BY_ID if named == "by id" else by_source(harness)))
        assert await work_to_the_end(harness, ids) == ["succeeded"] * 3
        assert await harness.live() == harness.there() == {}
        assert (await harness.last_pass())["state"] == "complete"


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_deletes_that_empty_a_tenant_succeed_although_their_process_ended_before_the_answers(
    tmp_path: Path, end: str
) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        ids = await harness.enqueue(*BY_ID)
        harness.sandbox.script("DELETE", SESSIONS, "hang_after", times=3)
        with anyio.move_on_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(harness.push().drain)
                await until(harness, lambda: not harness.sandbox.live())
                group.cancel_scope.cancel()
        if end == "killed":
            lease = "lease_until = requested_at, lease_owner = 'killed', next_attempt_at = NULL"
            await harness.sql(f"UPDATE operations SET state = 'running', unknown_since = NULL, {lease}")
            await harness.push().recover(abandoned=True)
        assert {row["unknown_since"] for row in [await harness.operation(operation_id) for operation_id in ids]} != {
            None
        }
        assert await work_to_the_end(harness, ids) == ["succeeded"] * 3
        assert await harness.live() == {}


async def test_delete_that_was_refused_or_not_sent_was_not_lost(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("DELETE", SESSIONS, 403)
        harness.sandbox.script("DELETE", SESSIONS, 429)
        ids = await harness.enqueue(*BY_ID[:2])
        await harness.push().drain()
        assert [(await harness.operation(operation_id))["unknown_since"] for operation_id in ids] == [None, None]


async def test_lost_delete_does_not_let_the_queue_work_in_another_tenant(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("DELETE", SESSIONS, "lost_before")
        await harness.enqueue(BY_ID[0])
        await harness.push().drain()
        move_to_another_tenant(harness)
        harness.clock.forward(300)
        harness.sandbox.requests.clear()
        await guarded(harness)[1].drain()
        assert changes(harness) == []
        assert (await harness.one_pass()).reason == PassReason.KNOWN_SESSIONS_GONE
        assert sorted(await harness.live()) == ["SES1", "SES2", "SES3"]


async def test_session_whose_delete_was_lost_is_no_witness_of_a_pass(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("DELETE", SESSIONS, "lost_before", times=2)
        await harness.enqueue(*BY_ID[:2])
        await harness.push().drain()
        everything = Progress(PassId(1), harness.clock.now(), resumed=False, seen=BitMap64([1, 2, 3]))

        def witnesses(connection: sa.Connection) -> set[str]:
            candidates = missing.listed(connection, everything, place=0.5, limit=5)
            return {candidate.session_id for candidate in candidates}

        assert await harness.database.read(witnesses) == {"SES3"}
        await harness.sql("UPDATE sessions SET deleted_at = valid_from, change = 'deleted' WHERE id = 'SES3'")
        assert await harness.database.read(witnesses) == {"SES1", "SES2"}, "better than none"


async def test_delete_that_syncd_fails_to_record_was_lost(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        (operation_id,) = await harness.enqueue(BY_ID[0])
        await harness.add_refusing_trigger("UPDATE", "NEW.deleted_at IS NOT NULL")
        await harness.push().drain()
        assert len(harness.named("operation.failed")) == 1
        row = await harness.operation(operation_id)
        assert (row["state"], row["unknown_since"] is None) == ("pending", False)
