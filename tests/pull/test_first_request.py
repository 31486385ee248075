"""The first requests of a pass: with credentials of another tenant, a pass is held before it writes or deletes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.mirror.store import passes
from syncd.pull.retries import ATTEMPTS
from syncd.records.enums import HoldState, PassReason
from tests.helpers.harness import Harness, open_harness
from tests.helpers.loop_time import hanging
from tests.pull.helpers import BASE, answer_get, asked_for, dump, listings, run_until, session
from tests.pull.holds import decide

pytestmark = pytest.mark.both_databases

THEIRS = [{"id": f"SESB{n}", "name": f"Theirs {n}", "sourceSessionId": f"their-{n}"} for n in range(1, 6)]


def move_to_another_tenant(harness: Harness) -> None:
    """Answer all later requests as another tenant would."""

    def answer(request: web.BaseRequest) -> web.Response:
        if request.path == BASE:
            return web.json_response({"Items": THEIRS})
        last = request.path.rpartition("/")[2]
        matches = [item for item in THEIRS if last in {item["id"], item["sourceSessionId"]}]
        return web.json_response(matches[0] if matches else {"message": "no"}, status=200 if matches else 404)

    harness.sandbox.script("GET", BASE, answer, times=10**9)


def move_back(harness: Harness) -> None:
    harness.sandbox.scripts = type(harness.sandbox.scripts)()


@pytest.mark.parametrize("live", [1, 3, 20, 45])
async def test_pass_over_another_tenant_is_held_before_anything_is_written(folder: Path, live: int) -> None:
    async with open_harness(folder, sessions=live) as harness:
        await harness.one_pass()
        before = await dump(harness)
        move_to_another_tenant(harness)
        harness.sandbox.requests.clear()
        outcome = await harness.one_pass()
        assert (outcome.state, outcome.reason) == ("held", PassReason.KNOWN_SESSIONS_GONE)
        assert await dump(harness) == before
        assert listings(harness) == []
        assert len(asked_for(harness)) == min(live, 5)
        assert len(set(asked_for(harness))) == min(live, 5)
        assert await harness.sql("SELECT held_pass_id, live_sessions FROM mirror_freshness") == [
            {"held_pass_id": 2, "live_sessions": live}
        ]
        row = await harness.last_pass()
        assert (row["state"], row["reason"], row["pages"], row["listed_at"]) == ("held", "known_sessions_gone", 0, None)
        assert "another tenant" in row["error"]
        (event,) = harness.named("pass.held")
        assert (event["pass_id"], event["code"], event["candidates"]) == (2, "known_sessions_gone", live)
        assert "syncd tenant show" in event["hint"]
        assert "syncd deletions approve 2" in event["hint"]


async def test_passes_over_another_tenant_share_one_hold_that_ends_with_the_right_credentials(folder: Path) -> None:
    async with open_harness(folder, sessions=20) as harness:
        await harness.one_pass()
        move_to_another_tenant(harness)
        for _ in range(3):
            assert (await harness.one_pass()).state == "held"
        assert [event["pass_id"] for event in harness.named("pass.held")] == [2]
        assert [event["hold"] for event in harness.named("pass.still_held")] == [2, 2]
        move_back(harness)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.sql("SELECT held_pass_id FROM mirror_freshness") == [{"held_pass_id": None}]
        assert await harness.live() == harness.there()
        assert (
            await harness.sql("SELECT * FROM sessions WHERE missing_since IS NOT NULL OR deleted_at IS NOT NULL") == []
        )


async def test_recent_own_creates_do_not_prevent_the_hold_of_a_pass_over_another_tenant(folder: Path) -> None:
    async with open_harness(folder, sessions=2) as harness:
        await harness.one_pass()
        created = await harness.enqueue(
            *({"kind": "create", "source_session_id": f"s-{n}", "name": "n"} for n in range(7))
        )
        await harness.push().drain()
        assert {(await harness.operation(operation_id))["state"] for operation_id in created} == {"succeeded"}
        before = await dump(harness)
        move_to_another_tenant(harness)
        harness.sandbox.requests.clear()
        for _ in range(3):
            assert (await harness.one_pass()).state == "held"
        assert await dump(harness) == before
        assert listings(harness) == []


async def test_session_that_albert_refuses_does_not_stop_a_pass(folder: Path) -> None:
    async with open_harness(folder, sessions=20) as harness:
        await harness.one_pass()
        harness.sandbox.update("SES9", name="renamed")
        harness.sandbox.script(
            "GET", f"{BASE}/SES1", lambda _: web.json_response({"message": "no"}, status=403), times=10**9
        )
        assert (await harness.one_pass()).state == "complete"
        assert (await harness.live())["SES9"] == "renamed"
        assert "SES1" in asked_for(harness)


async def test_approval_lets_the_next_pass_mirror_an_emptied_tenant(folder: Path) -> None:
    async with open_harness(folder, sessions=20) as harness:
        await harness.one_pass()
        for session_id in list(harness.there()):
            harness.sandbox.delete(session_id)
        assert (await harness.one_pass()).reason is PassReason.KNOWN_SESSIONS_GONE
        assert (await decide(harness, 2, HoldState.APPROVED)).sessions == 20
        harness.clock.forward(1)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == {}
        assert (await harness.last_pass())["deleted"] == 20


async def test_approval_deletes_only_sessions_that_answer_404(folder: Path) -> None:
    async with open_harness(folder, sessions=20) as harness:
        await harness.one_pass()
        move_to_another_tenant(harness)
        await harness.one_pass()
        await decide(harness, 2, HoldState.APPROVED)
        move_back(harness)
        harness.sandbox.delete("SES7")
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()
        assert await harness.sql("SELECT count(*) AS n FROM hold_sessions") == [{"n": 0}]


async def test_rejection_keeps_passes_held_without_another_report(folder: Path) -> None:
    async with open_harness(folder, sessions=20) as harness:
        await harness.one_pass()
        move_to_another_tenant(harness)
        await harness.one_pass()
        before = await dump(harness)
        await decide(harness, 2, HoldState.REJECTED)
        for _ in range(2):
            assert (await harness.one_pass()).state == "held"
        assert await dump(harness) == before
        assert [event["pass_id"] for event in harness.named("pass.held")] == [2]
        assert await harness.sql("SELECT held_pass_id FROM mirror_freshness") == [{"held_pass_id": None}]
        move_back(harness)
        harness.sandbox.delete("SES7")
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there(), "the question of the rejection is answered"
        assert await harness.sql("SELECT state FROM holds") == [{"state": "closed"}]


async def test_rejected_hold_can_still_be_approved_by_any_of_its_passes(folder: Path) -> None:
    async with open_harness(folder, sessions=3) as harness:
        await harness.one_pass()
        for session_id in list(harness.there()):
            harness.sandbox.delete(session_id)
        await harness.one_pass()
        await decide(harness, 2, HoldState.REJECTED)
        await harness.one_pass()
        await decide(harness, 3, HoldState.APPROVED)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == {}


@pytest.mark.parametrize("gone", [1, 2, 3, 4])
async def test_one_first_request_that_answers_200_is_enough(folder: Path, gone: int) -> None:
    async with open_harness(folder, sessions=45) as harness:
        await harness.one_pass()
        await harness.one_pass()
        requested = iter(range(100))
        harness.sandbox.script(
            "GET", f"{BASE}/", lambda _: None if next(requested) >= gone else answer(404), times=10**9
        )
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        assert len(asked_for(harness)) == gone + 1


def answer(status: int, body: str = '{"message": "no"}') -> web.Response:
    return web.Response(status=status, text=body, content_type="application/json")


async def test_first_requests_are_spread_over_the_last_listing(folder: Path) -> None:
    async with open_harness(folder, sessions=100) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", f"{BASE}/", 404, times=10**9)
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "held"
        numbers = sorted(int(session_id.removeprefix("SES")) for session_id in asked_for(harness))
        assert numbers == [1, 21, 41, 71, 91]


async def test_new_mirror_makes_no_first_request(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        assert asked_for(harness) == []


@pytest.mark.parametrize("gone", [False, True])
async def test_resumed_pass_makes_a_first_request_too(folder: Path, monkeypatch: Any, gone: bool) -> None:
    monkeypatch.setattr("syncd.pull.fetch.MOST_PAGES", 1)
    async with open_harness(folder, sessions=45) as harness:
        await run_until(harness, pages=2)
        if gone:
            move_to_another_tenant(harness)
        harness.sandbox.requests.clear()
        outcome = await harness.one_pass()
        assert (outcome.pass_id, outcome.state) == (1, "held" if gone else "complete")
        assert len(asked_for(harness)) == (5 if gone else 1)
        assert bool(listings(harness)) is not gone
        assert set(await harness.live()) <= set(harness.there())


TROUBLE = {
    "500": (500, PassReason.ALBERT_FAILING),
    "503": (503, PassReason.ALBERT_FAILING),
    "429": (429, PassReason.ALBERT_FAILING),
    "403": (403, PassReason.ALBERT_FAILING),
    "lost": ("lost_before", PassReason.ALBERT_UNREACHABLE),
    "garbled": ("garbled", PassReason.ANSWER_UNREADABLE),
    "hang": (hanging(5), PassReason.ALBERT_UNREACHABLE),
}


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(("action", "reason"), TROUBLE.values(), ids=TROUBLE)
async def test_failed_first_request_is_retried_like_a_page(folder: Path, action: Any, reason: PassReason) -> None:
    async with open_harness(folder, sessions=5, request_timeout=5) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", f"{BASE}/", action, times=ATTEMPTS - 1)
        assert (await harness.one_pass()).state == "complete"
        harness.sandbox.script("GET", f"{BASE}/", action, times=100)
        harness.sandbox.requests.clear()
        outcome = await harness.one_pass()
        assert (outcome.state, outcome.reason) == ("failed", reason)
        assert "the first request" in str(outcome.error)
        assert listings(harness) == []


async def test_html_404_of_a_gateway_fails_the_pass(folder: Path) -> None:
    page = "<!doctype html><html><head><title>404 Not Found</title></head></html>"
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        harness.sandbox.script(
            "GET", BASE, lambda _: web.Response(status=404, text=page, content_type="text/html"), 10**9
        )
        outcome = await harness.one_pass()
        assert (outcome.state, outcome.reason) == ("failed", PassReason.ANSWER_UNREADABLE)
        assert await harness.sql("SELECT * FROM holds") == []


async def test_credentials_refused_for_the_first_request_fail_the_pass(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", f"{BASE}/", 401, times=10)
        outcome = await harness.one_pass()
        assert (outcome.state, outcome.reason) == ("failed", PassReason.CREDENTIALS_REFUSED)


async def test_refused_first_request_is_skipped_and_the_pass_fails_if_all_are_refused(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        answer_get(harness, "SES1", 400)
        assert (await harness.one_pass()).state == "complete"
        harness.sandbox.script("GET", f"{BASE}/", 400, times=10**9)
        outcome = await harness.one_pass()
        assert (outcome.state, outcome.reason) == ("failed", PassReason.LISTING_REFUSED)


async def test_own_create_that_look_ups_do_not_show_yet_opens_no_hold(folder: Path) -> None:
    async with open_harness(folder) as harness:
        await harness.enqueue(*({"kind": "create", "source_session_id": f"s-{n}", "name": "ours"} for n in range(3)))
        await harness.push().drain()
        assert len(await harness.live()) == 3
        harness.sandbox.habits.lookup_lag = 60
        assert (await harness.one_pass()).state == "complete"
        harness.sandbox.requests.clear()
        harness.sandbox.habits.lookup_lag = 10**6
        harness.sandbox.script("GET", f"{BASE}/", 404, times=10**9)
        assert (await harness.one_pass()).state == "held", "a pass has listed them meanwhile"


async def test_missing_and_rejected_sessions_are_not_used_for_first_requests(folder: Path) -> None:
    async with open_harness(folder, sessions=8) as harness:
        harness.guard = type(harness.guard)(grace=10**6, confirmations=9, max_count=4, max_fraction=0.0)
        await harness.one_pass()
        for number in (1, 2, 3, 4, 5, 6):
            harness.sandbox.delete(f"SES{number}")
        assert (await harness.one_pass()).state == "held"
        await decide(harness, 2, HoldState.REJECTED)
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        assert set(asked_for(harness)) <= {"SES7", "SES8"}
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        assert set(asked_for(harness)) <= {"SES7", "SES8"}


async def test_decision_during_the_first_requests_takes_effect(folder: Path) -> None:
    async with open_harness(folder, sessions=3) as harness:
        await harness.one_pass()
        for session_id in list(harness.there()):
            harness.sandbox.delete(session_id)
        await harness.one_pass()

        async def approve(_: object) -> None:
            await decide(harness, 2, HoldState.APPROVED)

        harness.sandbox.script("GET", f"{BASE}/SES3", approve)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == {}


async def test_pass_lost_during_its_first_requests_sends_no_more_after_a_decision(folder: Path) -> None:
    async with open_harness(folder, sessions=3) as harness:
        await harness.one_pass()
        for session_id in list(harness.there()):
            harness.sandbox.delete(session_id)
        await harness.one_pass()

        async def approve_and_take_over(_: object) -> None:
            await decide(harness, 2, HoldState.APPROVED)
            await harness.database.write(passes.resume)

        harness.sandbox.script("GET", f"{BASE}/SES3", approve_and_take_over)
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "running"
        assert sorted(asked_for(harness)) == ["SES1", "SES2", "SES3"]
        assert listings(harness) == []


async def test_unreadable_200_to_a_first_request_proves_that_the_session_exists(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        odd = json.dumps({**harness.sandbox.live()["SES1"], "name": None})
        answer_get(harness, "SES1", lambda _: answer(200, odd))
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        assert asked_for(harness) == ["SES1"]
        assert (await session(harness, "SES1"))["missing_since"] is None
