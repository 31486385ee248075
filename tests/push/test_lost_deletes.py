"""Deletes whose answer was lost: their sessions may be gone, so they are no evidence, and the last ones end too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from syncd.records.enums import PassReason
from tests.helpers.harness import World, world
from tests.pull.test_first_request import move_to_another_tenant
from tests.pull.test_known_tenant import changes, guarded
from tests.push.helpers import SESSIONS, finished, until, working

pytestmark = pytest.mark.both_databases

BY_ID: list[dict[str, Any]] = [{"kind": "delete", "session_id": f"SES{n}"} for n in (1, 2, 3)]


def by_source(w: World) -> list[dict[str, Any]]:
    return [{"kind": "delete", "source_session_id": wire["sourceSessionId"]} for wire in w.sandbox.live().values()]


async def work_to_the_end(w: World, ids: list[int]) -> list[str]:
    """Let a new process work, take a pass, and work again, until all operations are final."""
    for _ in range(5):
        async with working(guarded(w)[1]):
            with anyio.move_on_after(2):
                await finished(w, *ids)
        w.clock.forward(300)
        await w.one_pass()
    return [(await w.operation(one))["state"] for one in ids]


@pytest.mark.parametrize("fault", ["lost_after", "error_500_after"])
@pytest.mark.parametrize("named", ["by id", "by source id"])
async def test_deletes_that_empty_a_tenant_succeed_although_every_answer_is_lost(
    tmp_path: Path, fault: Any, named: str
) -> None:
    async with world(tmp_path, sessions=3) as w:
        await w.one_pass()
        w.sandbox.script("DELETE", SESSIONS, fault, times=3)
        ids = await w.enqueue(*(BY_ID if named == "by id" else by_source(w)))
        assert await work_to_the_end(w, ids) == ["succeeded"] * 3
        assert await w.live() == w.there() == {}
        assert (await w.last_pass())["state"] == "complete"


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_deletes_that_empty_a_tenant_succeed_although_their_process_ended_before_the_answers(
    tmp_path: Path, end: str
) -> None:
    async with world(tmp_path, sessions=3) as w:
        await w.one_pass()
        ids = await w.enqueue(*BY_ID)
        w.sandbox.script("DELETE", SESSIONS, "hang_after", times=3)
        with anyio.move_on_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(w.push().drain)
                await until(w, lambda: not w.sandbox.live())
                group.cancel_scope.cancel()
        if end == "killed":
            lease = "lease_until = requested_at, lease_owner = 'killed', next_attempt_at = NULL"
            await w.sql(f"UPDATE operations SET state = 'running', unknown_since = NULL, {lease}")
            await w.push().recover(abandoned=True)
        assert {row["unknown_since"] for row in [await w.operation(one) for one in ids]} != {None}
        assert await work_to_the_end(w, ids) == ["succeeded"] * 3
        assert await w.live() == {}


async def test_delete_that_was_refused_or_not_sent_was_not_lost(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        await w.one_pass()
        w.sandbox.script("DELETE", SESSIONS, 403)
        w.sandbox.script("DELETE", SESSIONS, 429)
        ids = await w.enqueue(*BY_ID[:2])
        await w.push().drain()
        assert [(await w.operation(one))["unknown_since"] for one in ids] == [None, None]


async def test_lost_delete_does_not_let_the_queue_work_in_another_tenant(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        await w.one_pass()
        w.sandbox.script("DELETE", SESSIONS, "lost_before")
        await w.enqueue(BY_ID[0])
        await w.push().drain()
        move_to_another_tenant(w)
        w.clock.forward(300)
        w.sandbox.requests.clear()
        await guarded(w)[1].drain()
        assert changes(w) == []
        assert (await w.one_pass()).reason == PassReason.KNOWN_SESSIONS_GONE
        assert sorted(await w.live()) == ["SES1", "SES2", "SES3"]
