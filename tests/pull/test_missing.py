"""Sessions that are not listed: when they are missing, and when they become tombstones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web

from syncd.records.ids import SessionId
from syncd.rules.deletion import Guard
from syncd.witness import AbsenceUnprovenError
from tests.helpers.harness import Harness, open_harness
from tests.helpers.loop_time import hanging
from tests.pull.helpers import BASE, Listing, all_but, answer_get, asked_for, counted, history, listings, page, session

pytestmark = pytest.mark.both_databases

TWICE = Guard(grace=120, confirmations=2, max_count=25, max_fraction=0.05)


def listing_without(harness: Harness, *ids: str) -> Listing:
    """Script a listing that leaves live sessions out."""
    return Listing(harness, {None: all_but(harness, *ids)})


@pytest.mark.parametrize("gone_status", [404, 410])
async def test_session_is_deleted_after_enough_404s_and_the_grace_and_not_before(
    folder: Path, gone_status: Literal[404, 410]
) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = TWICE
        harness.sandbox.habits.gone_status = gone_status
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        for seconds, absences in ((0, 1), (60, 2), (59, 3)):
            harness.clock.forward(seconds)
            await harness.one_pass()
            row = await session(harness, "SES2")
            assert (row["absences"], row["deleted_at"]) == (absences, None)
            assert row["missing_since"] == "2026-06-01T12:00:00.000000Z"
            counts = await counted(harness)
            assert (counts["missing"], counts["deleted"]) == (1, 0)
            assert "SES2" in await harness.live()
        harness.clock.forward(1)
        await harness.one_pass()
        assert (await session(harness, "SES2"))["deleted_at"] == "2026-06-01T12:02:00.000000Z"
        counts = await counted(harness)
        assert (counts["missing"], counts["deleted"]) == (1, 1)
        assert await harness.live() == harness.there()
        assert [e["session_id"] for e in harness.named("session.missing")] == ["SES2"]
        assert [(e["session_id"], e["pass_id"]) for e in harness.named("session.deleted")] == [("SES2", 5)]
        await harness.one_pass()
        assert (await counted(harness))["missing"] == 0


@pytest.mark.parametrize("confirmations", [1, 2, 3])
async def test_each_pass_counts_one_404_and_all_confirmations_are_needed(folder: Path, confirmations: int) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = Guard(grace=0, confirmations=confirmations, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        for number in range(1, confirmations + 1):
            assert "SES2" in await harness.live()
            await harness.one_pass()
            assert asked_for(harness).count("SES2") == number
        assert "SES2" not in await harness.live()


async def test_200_clears_the_missing_mark_and_the_absences(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = Guard(grace=0, confirmations=3, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        listing_without(harness, "SES2")
        answer_get(harness, "SES2", 404, times=2)
        harness.sandbox.script("GET", f"{BASE}/source/", 404, times=10**9)
        for absences in (1, 2):
            await harness.one_pass()
            assert (await session(harness, "SES2"))["absences"] == absences
        harness.clock.forward(1)
        await harness.one_pass()
        row = await session(harness, "SES2")
        assert (row["absences"], row["missing_since"], row["observed_at"]) == (0, None, "2026-06-01T12:00:01.000000Z")
        assert (await counted(harness))["missing"] == 0
        harness.clock.forward(3600)
        answer_get(harness, "SES2", 404)
        await harness.one_pass()
        assert (await session(harness, "SES2"))["absences"] == 1


async def test_another_listing_of_the_session_clears_the_missing_mark_and_the_absences(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = TWICE
        await harness.one_pass()
        listing = listing_without(harness, "SES2")
        answer_get(harness, "SES2", 404)
        harness.sandbox.script("GET", f"{BASE}/source/", 404)
        await harness.one_pass()
        assert (await session(harness, "SES2"))["absences"] == 1
        listing.pages = {None: page(*harness.sandbox.live().values())}
        await harness.one_pass()
        row = await session(harness, "SES2")
        assert (row["absences"], row["missing_since"]) == (0, None)
        assert [version["change"] for version in await history(harness, "SES2")] == ["created"]


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("action", [500, 503, 403, 429, 400, 401, "lost_before", "garbled", hanging(5)])
async def test_answer_that_is_neither_200_nor_404_decides_nothing(folder: Path, action: Any) -> None:
    async with open_harness(folder, sessions=5, request_timeout=5) as harness:
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        answer_get(harness, "SES2", action)
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
            row = await session(harness, "SES2")
            assert (row["absences"], row["deleted_at"]) == (0, None)
            assert row["missing_since"] is not None
            assert "SES2" in await harness.live()


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("fault", ["garbled", "cut", "lost_after", "error_500_after"])
async def test_200_that_cannot_be_read_decides_nothing(folder: Path, fault: Any) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        listing_without(harness, "SES2")
        answer_get(harness, "SES2", fault)
        await harness.one_pass()
        row = await session(harness, "SES2")
        assert (row["absences"], row["deleted_at"]) == (0, None)
        assert row["missing_since"] is not None


async def test_200_that_is_another_session_decides_nothing(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        other = harness.sandbox.live()["SES3"]
        answer_get(harness, "SES2", lambda _: web.json_response(other))
        await harness.one_pass()
        row = await session(harness, "SES2")
        assert (row["absences"], row["deleted_at"]) == (0, None)
        assert row["missing_since"] is not None


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("status", [404, 410, 500, 403])
@pytest.mark.parametrize("gone", [1, 20])
async def test_404s_do_not_count_when_no_listed_session_answers_200(folder: Path, status: int, gone: int) -> None:
    """A gateway can answer 404 to all look-ups."""
    async with open_harness(folder, sessions=30) as harness:
        await harness.one_pass()
        for number in range(1, gone + 1):
            harness.sandbox.delete(f"SES{number}")
        for number in (2, 3, 4):
            look_ups_break_after(harness, number)
            harness.sandbox.script("GET", f"{BASE}/", status, times=10**9)
            assert (await harness.one_pass()).state == "complete"
            harness.sandbox.scripts = type(harness.sandbox.scripts)()
            harness.clock.forward(60)
        assert await harness.sql("SELECT id FROM sessions WHERE absences > 0 OR deleted_at IS NOT NULL") == []
        assert await harness.sql("SELECT missing_sessions FROM mirror_freshness") == [{"missing_sessions": gone}]
        assert bool(harness.named("absence.unproven")) == (status in {404, 410})
        assert len(await harness.live()) == 30


def look_ups_break_after(harness: Harness, pass_id: int) -> None:
    """Let the look-ups of a pass reach the sandbox until its listing is requested; later scripts answer the rest."""

    def is_before(_: object) -> bool:
        starts = [event["pass_id"] for event in harness.named("pass.started")]
        return starts[-1] == pass_id and not listings(harness)

    harness.sandbox.requests.clear()
    harness.sandbox.script(
        "GET", lambda request: request.path.startswith(f"{BASE}/") and is_before(request), lambda _: None, 99
    )


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(("answer", "unknown"), [(404, False), (500, True), (hanging(5), True), ("garbled", True)])
async def test_failed_look_up_by_source_id_is_logged_as_unknown(folder: Path, answer: Any, *, unknown: bool) -> None:
    async with open_harness(folder, sessions=25, request_timeout=5) as harness:
        await harness.one_pass()
        harness.sandbox.delete("SES7")
        harness.sandbox.script("GET", f"{BASE}/source/", answer)
        await harness.one_pass()
        assert [event["unknown"] for event in harness.named("sweep.asked")] == [unknown]


async def test_one_witness_among_the_first_few_is_enough(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        answer_get(harness, "SES5", 500)
        await harness.one_pass()
        assert "SES2" not in await harness.live()


async def test_failed_check_of_the_queue_does_not_stop_a_sweep_that_has_listed_a_witness(folder: Path) -> None:
    async with open_harness(folder, sessions=40) as harness:
        await harness.one_pass()
        harness.lookups.witness.random_place = lambda: 0.0
        for number in range(1, 11):
            harness.sandbox.delete(f"SES{number}")
        with pytest.raises(AbsenceUnprovenError):
            await harness.lookups.by_id(SessionId("SES1"))
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()


async def test_pass_without_missing_sessions_makes_one_request_in_addition_to_its_pages(folder: Path) -> None:
    async with open_harness(folder, sessions=25) as harness:
        await harness.one_pass()
        assert asked_for(harness) == []
        await harness.one_pass()
        assert asked_for(harness) == ["SES1"]


async def test_source_id_of_a_deleted_session_is_linked_to_the_session_that_has_it_now(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = TWICE
        await harness.one_pass()
        source = harness.sandbox.live()["SES2"]["sourceSessionId"]
        harness.sandbox.delete("SES2")
        # The new session is not listed yet; only a look-up by source id can find it.
        listing = listing_without(harness, "SES2")
        again = harness.sandbox.create(source_session_id=source, name="made again")
        assert again["id"] not in str(listing.pages)
        await harness.one_pass()
        (link,) = await harness.sql("SELECT state, session_id FROM source_sessions WHERE source_session_id = ?", source)
        assert link == {"state": "linked", "session_id": again["id"]}
        assert (await harness.live())[again["id"]] == "made again"
        assert [e["session_id"] for e in harness.named("source.linked") if e["source_session_id"] == source] == [
            again["id"]
        ]
        assert (await session(harness, "SES2"))["absences"] == 1


async def test_404_by_id_and_200_by_source_id_decide_nothing(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        listing_without(harness, "SES2")
        answer_get(harness, "SES2", 404)
        for _ in range(3):
            await harness.one_pass()
        row = await session(harness, "SES2")
        assert (row["absences"], row["deleted_at"]) == (0, None)


async def test_session_observed_by_an_operation_during_the_pass_is_not_missing(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()

        async def adopt(_: object) -> None:
            harness.clock.forward(1)
            await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "ours"})
            await harness.push().drain()

        harness.sandbox.script("GET", lambda request: request.path == BASE, adopt)
        harness.sandbox.habits.listing_lag = 3600
        await harness.one_pass()
        row = await harness.last_pass()
        assert (row["missing"], row["deleted"]) == (0, 0)
        assert len(await harness.live()) == 6


async def test_deleted_session_that_is_listed_after_the_grace_is_restored(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = Guard(grace=120, confirmations=1, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        gone = harness.sandbox.delete("SES2")
        await harness.one_pass()
        harness.clock.forward(120)
        await harness.one_pass()
        assert "SES2" not in await harness.live()
        harness.sandbox.create(source_session_id=gone["sourceSessionId"], name=gone["name"], id="SES2")
        harness.clock.forward(119)
        await harness.one_pass()
        assert "SES2" not in await harness.live(), "listed within the grace: a listing may lag"
        assert (await counted(harness))["unchanged"] == 5
        harness.clock.forward(1)
        await harness.one_pass()
        assert await harness.live() == harness.there()
        row = await counted(harness)
        assert (row["restored"], row["unchanged"]) == (1, 4)
        assert [e["session_id"] for e in harness.named("session.restored")] == ["SES2"]
        versions = await history(harness, "SES2")
        assert [version["change"] for version in versions] == ["created", "deleted", "restored"]
        (link,) = await harness.sql(
            "SELECT state, session_id FROM source_sessions WHERE source_session_id = ?", gone["sourceSessionId"]
        )
        assert link == {"state": "linked", "session_id": "SES2"}
        shown = await session(harness, "SES2")
        assert (shown["deleted_at"], shown["missing_since"], shown["absences"]) == (None, None, 0)


async def test_tombstone_that_a_look_up_by_source_id_finds_alive_is_restored_when_listed(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        source = harness.sandbox.live()["SES2"]["sourceSessionId"]
        listing = Listing(harness, {None: all_but(harness, "SES2")})
        answer_get(harness, "SES2", 404, times=1)
        harness.sandbox.script("GET", f"{BASE}/source/{source}", 404)
        await harness.one_pass()
        assert "SES2" not in await harness.live()
        harness.clock.forward(1)
        twin = harness.sandbox.create(id="TWIN", source_session_id=source, name="twin")
        listing.pages = {None: all_but(harness, "SES2")}
        await harness.one_pass()
        listing.pages = {None: all_but(harness, "SES2", twin["id"])}
        answer_get(harness, "TWIN", 404, times=1)
        harness.clock.forward(1)
        await harness.one_pass()
        assert "SES2" not in await harness.live()  # the answer may be older than the deletion, because look-ups lag
        listing.pages = {None: page(*harness.sandbox.live().values())}
        await harness.one_pass()
        assert "SES2" in await harness.live()
        assert "SES2" in [e["session_id"] for e in harness.named("session.restored")]


async def test_missing_session_is_live_and_marked_as_missing_in_the_views(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = TWICE
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        await harness.one_pass()
        assert "SES2" in await harness.live()
        rows = await harness.sql(
            "SELECT id FROM chat_sessions_all WHERE missing_since IS NOT NULL AND deleted_at IS NULL"
        )
        assert rows == [{"id": "SES2"}]
        (fresh,) = await harness.sql("SELECT live_sessions, missing_sessions, deleted_sessions FROM mirror_freshness")
        assert fresh == {"live_sessions": 5, "missing_sessions": 1, "deleted_sessions": 0}


async def test_session_whose_id_cannot_be_sent_is_kept_and_never_requested(folder: Path) -> None:
    async with open_harness(folder, sessions=3) as harness:
        hostile = {"id": "..", "name": "x", "sourceSessionId": ".."}
        listing = Listing(harness, {None: page(*harness.sandbox.live().values(), hostile)})
        await harness.one_pass()
        listing.pages = {None: page(*harness.sandbox.live().values())}
        for _ in range(3):
            assert (await harness.one_pass()).state == "complete"
        assert ".." in await harness.live()
        assert all(".." not in path for path in harness.asked("GET"))


@pytest.mark.parametrize(("answer", "counted"), [({"name": None}, 0), ({"id": "SES3"}, 1), (b"<html>", 1)])
async def test_unreadable_200_with_the_id_of_the_session_clears_the_missing_mark(
    folder: Path, answer: Any, counted: int
) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = Guard(grace=0, confirmations=3, max_count=5, max_fraction=0.0)
        await harness.one_pass()
        listed = all_but(harness, "SES2")
        Listing(harness, {None: listed})
        there = harness.sandbox.live()["SES2"]
        for path in (f"{BASE}/SES2", f"{BASE}/source/"):
            harness.sandbox.script("GET", path, 404)
        await harness.one_pass()
        assert (await session(harness, "SES2"))["absences"] == 1
        body = answer if isinstance(answer, bytes) else json.dumps(there | answer).encode()
        harness.sandbox.script("GET", f"{BASE}/SES2", lambda _: web.Response(body=body))
        await harness.one_pass()
        row = await session(harness, "SES2")
        assert (row["absences"], row["missing_since"] is None) == (counted, counted == 0)
