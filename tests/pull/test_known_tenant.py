"""The queue and reconciling send nothing to another tenant, and write none of its sessions to the mirror."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from syncd.pull.known_tenant import KnownTenant
from syncd.push.flow import Push
from syncd.records.enums import HoldState
from syncd.records.ids import PassId
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import BASE, asked_for, dump
from tests.pull.holds import decide
from tests.pull.test_first_request import move_back, move_to_another_tenant
from tests.push.helpers import until

pytestmark = pytest.mark.both_databases

FOREIGN: list[dict[str, Any]] = [
    {"kind": "delete", "session_id": "SESB1"},
    {"kind": "delete", "source_session_id": "their-2"},
    {"kind": "delete", "session_id": "SES1"},
    {"kind": "update", "session_id": "SESB3", "name": "renamed"},
    {"kind": "create", "source_session_id": "their-4", "name": "adopted"},
    {"kind": "create", "source_session_id": "new", "name": "new"},
]


def guarded(harness: Harness) -> tuple[KnownTenant, Push]:
    """Return a queue that asks first, as that of a new process."""
    known = KnownTenant(database=harness.database, albert=harness.albert, clock=harness.clock)
    push = harness.push()
    push.known_tenant = known
    return known, push


def changes(harness: Harness) -> list[str]:
    return [request.raw_path for request in harness.sandbox.requests if request.method in {"POST", "DELETE", "PATCH"}]


async def states(harness: Harness) -> list[str]:
    return [row["state"] for row in await harness.sql("SELECT state FROM operations ORDER BY id")]


async def test_first_drain_of_a_process_asks_before_it_sends(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=20) as harness:
        await harness.one_pass()
        before = (await dump(harness))["sessions"]
        move_to_another_tenant(harness)
        await harness.enqueue(*FOREIGN)
        harness.sandbox.requests.clear()
        await guarded(harness)[1].drain()
        assert changes(harness) == []
        assert len(asked_for(harness)) == len(harness.sandbox.requests) == 5
        assert await states(harness) == ["pending"] * len(FOREIGN)
        assert (await dump(harness))["sessions"] == before


async def test_pass_is_held_although_the_queue_and_a_new_source_id_name_sessions_of_another_tenant(
    tmp_path: Path,
) -> None:
    async with open_harness(tmp_path, sessions=20) as harness:
        await harness.one_pass()
        before = (await dump(harness))["sessions"]
        move_to_another_tenant(harness)
        assert (await harness.one_pass()).state == "held"
        await harness.sql("INSERT INTO source_sessions (source_session_id) VALUES ('their-1')")
        await harness.enqueue(*FOREIGN)
        for _ in range(3):
            harness.clock.forward(1200)
            await guarded(harness)[1].drain()
            assert await harness.reconcile().run() == 0
            assert (await harness.one_pass()).state == "held"
        assert changes(harness) == []
        assert (await dump(harness))["sessions"] == before


async def test_queue_continues_as_soon_as_albert_knows_a_session_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=20) as harness:
        await harness.one_pass()
        _, push = guarded(harness)
        await harness.enqueue({"kind": "create", "source_session_id": "before", "name": "n"})
        await push.drain()
        move_to_another_tenant(harness)
        assert (await harness.one_pass()).state == "held"
        await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        sent = len(changes(harness))
        await push.drain()
        assert (await states(harness), len(changes(harness))) == (["succeeded", "pending"], sent)
        move_back(harness)
        harness.clock.forward(10)
        await push.drain()
        assert await states(harness) == ["succeeded", "succeeded"], "no pass was needed"


async def test_albert_is_asked_less_and_less_often_while_it_knows_no_session(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=20) as harness:
        await harness.one_pass()
        move_to_another_tenant(harness)
        await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        known, _ = guarded(harness)
        harness.sandbox.requests.clear()
        for _ in range(3600):
            assert not await known.may_act()
            harness.clock.forward(1)
        assert len(asked_for(harness)) < 5 * 80
        move_back(harness)
        known.ask_again()
        assert await known.may_act(), "a new token is not waited for"


async def test_queue_continues_in_an_emptied_tenant_after_an_approval(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=20) as harness:
        await harness.one_pass()
        for session_id in list(harness.there()):
            harness.sandbox.delete(session_id)
        outcome = await harness.one_pass()
        assert outcome.state == "held"
        (operation_id,) = await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        _, push = guarded(harness)
        await push.drain()
        assert await states(harness) == ["pending"]
        await decide(harness, outcome.pass_id, HoldState.APPROVED)
        assert (await harness.one_pass()).state == "complete"
        harness.clock.forward(1)
        await push.drain()
        assert (await harness.operation(operation_id))["state"] == "succeeded"


async def test_albert_is_asked_once_for_each_token_and_only_if_operations_wait(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=20) as harness:
        await harness.one_pass()
        known, push = guarded(harness)
        harness.sandbox.requests.clear()
        await push.drain()
        assert not harness.sandbox.requests
        await harness.enqueue({"kind": "update", "session_id": "SES1", "name": "renamed"})
        await push.drain()
        assert known.is_confirmed
        harness.sandbox.script(
            "GET", f"{BASE}/SES", 500, times=1
        )  # no later operation requests a session of the mirror
        await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        known.ask_again()
        await push.drain()
        assert (await states(harness), push.in_doubt) == (["succeeded", "pending"], True)


@pytest.mark.parametrize(("status", "sent"), [(500, False), (429, False), (403, False), (400, True)])
async def test_answer_that_decides_nothing_is_waited_for_and_a_refusal_stops_nothing(
    tmp_path: Path, status: int, sent: bool
) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", f"{BASE}/SES", status, times=1)
        await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        _, push = guarded(harness)
        await push.drain()
        assert len(changes(harness)) == sent
        await push.drain()
        assert len(changes(harness)) == sent, "Albert is not asked again at once"
        harness.clock.forward(10)
        await push.drain()
        assert await states(harness) == ["succeeded"]


async def test_pass_that_fails_before_its_first_page_ends_no_doubt(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=20) as harness:
        await harness.one_pass()
        move_to_another_tenant(harness)
        assert (await harness.one_pass()).state == "held"
        move_back(harness)
        harness.sandbox.script("GET", BASE, 500, times=10**9)
        assert (await harness.one_pass()).state == "failed"
        await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        await harness.push().drain()
        assert changes(harness) == []
        move_back(harness)
        assert (await harness.one_pass()).state == "complete"
        await harness.push().drain()
        assert await states(harness) == ["succeeded"]


@pytest.mark.parametrize("doubt", ["a new token of another request", "a pass that was held"])
async def test_answer_that_is_older_than_a_doubt_is_not_used(tmp_path: Path, doubt: str) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        known, _ = guarded(harness)

        async def of_another_task() -> None:
            if doubt == "a pass that was held":
                known.doubt(PassId(2))
            else:
                known.ask_again()

        async def answer(_: web.BaseRequest) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(of_another_task)

        harness.sandbox.script("GET", BASE, answer)
        harness.sandbox.requests.clear()
        assert await known.may_act()
        assert len(harness.sandbox.requests) == 2, "the first answer is older than the doubt"


async def test_token_of_the_request_itself_does_not_repeat_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        known, _ = guarded(harness)
        ask = harness.albert.get_raw

        async def with_a_new_token(**arguments: Any) -> bytes:
            known.ask_again()
            return await ask(**arguments)

        harness.albert.get_raw = with_a_new_token  # type: ignore[method-assign]
        harness.sandbox.requests.clear()
        assert await known.may_act()
        assert len(harness.sandbox.requests) == 1


async def test_answer_for_an_old_token_does_not_confirm_the_token_of_another_task(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        known, _ = guarded(harness)
        ask, answered, requests = harness.albert.get_raw, anyio.Event(), 0

        async def of_the_queue(**arguments: Any) -> bytes:
            nonlocal requests
            requests += 1
            body = await ask(**arguments)  # with the old token
            if requests == 1:
                await answered.wait()
            return body

        async def of_reconciling(**arguments: Any) -> bytes:
            known.ask_again()  # its request is the first with a new token
            answered.set()
            await harness.clock.sleep(1)
            return await ask(**arguments)

        async def queue() -> None:
            harness.albert.get_raw = of_the_queue  # type: ignore[method-assign]
            assert await known.may_act()

        async with anyio.create_task_group() as group:
            group.start_soon(queue)
            await until(harness, lambda: requests == 1)
            harness.albert.get_raw = of_reconciling  # type: ignore[method-assign]
            group.start_soon(known.may_act)
            await answered.wait()
            harness.albert.get_raw = of_the_queue  # type: ignore[method-assign]
        assert requests == 2, "the queue asked again"
