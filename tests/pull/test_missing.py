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
from tests.helpers.harness import World, world
from tests.helpers.loop_time import hanging
from tests.pull.helpers import BASE, Listing, all_but, answer_get, asked_for, counted, history, listings, page, session

pytestmark = pytest.mark.both_databases

TWICE = Guard(grace=120, confirmations=2, max_count=25, max_fraction=0.05)


def listing_without(w: World, *ids: str) -> Listing:
    """Script a listing that leaves live sessions out."""
    return Listing(w, {None: all_but(w, *ids)})


@pytest.mark.parametrize("gone_status", [404, 410])
async def test_session_is_deleted_after_enough_404s_and_the_grace_and_not_before(
    folder: Path, gone_status: Literal[404, 410]
) -> None:
    async with world(folder, sessions=5) as w:
        w.guard = TWICE
        w.sandbox.habits.gone_status = gone_status
        await w.one_pass()
        w.sandbox.delete("SES2")
        for seconds, absences in ((0, 1), (60, 2), (59, 3)):
            w.clock.forward(seconds)
            await w.one_pass()
            row = await session(w, "SES2")
            assert (row["absences"], row["deleted_at"]) == (absences, None)
            assert row["missing_since"] == "2026-06-01T12:00:00.000000Z"
            counts = await counted(w)
            assert (counts["missing"], counts["deleted"]) == (1, 0)
            assert "SES2" in await w.live()
        w.clock.forward(1)
        await w.one_pass()
        assert (await session(w, "SES2"))["deleted_at"] == "2026-06-01T12:02:00.000000Z"
        counts = await counted(w)
        assert (counts["missing"], counts["deleted"]) == (1, 1)
        assert await w.live() == w.there()
        assert [e["session_id"] for e in w.named("session.missing")] == ["SES2"]
        assert [(e["session_id"], e["pass_id"]) for e in w.named("session.deleted")] == [("SES2", 5)]
        await w.one_pass()
        assert (await counted(w))["missing"] == 0


@pytest.mark.parametrize("confirmations", [1, 2, 3])
async def test_each_pass_counts_one_404_and_all_confirmations_are_needed(folder: Path, confirmations: int) -> None:
    async with world(folder, sessions=5) as w:
        w.guard = Guard(grace=0, confirmations=confirmations, max_count=25, max_fraction=0.05)
        await w.one_pass()
        w.sandbox.delete("SES2")
        for number in range(1, confirmations + 1):
            assert "SES2" in await w.live()
            await w.one_pass()
            assert asked_for(w).count("SES2") == number
        assert "SES2" not in await w.live()


async def test_200_clears_the_missing_mark_and_the_absences(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        w.guard = Guard(grace=0, confirmations=3, max_count=25, max_fraction=0.05)
        await w.one_pass()
        listing_without(w, "SES2")
        answer_get(w, "SES2", 404, times=2)
        w.sandbox.script("GET", f"{BASE}/source/", 404, times=10**9)
        for absences in (1, 2):
            await w.one_pass()
            assert (await session(w, "SES2"))["absences"] == absences
        w.clock.forward(1)
        await w.one_pass()
        row = await session(w, "SES2")
        assert (row["absences"], row["missing_since"], row["observed_at"]) == (0, None, "2026-06-01T12:00:01.000000Z")
        assert (await counted(w))["missing"] == 0
        w.clock.forward(3600)
        answer_get(w, "SES2", 404)
        await w.one_pass()
        assert (await session(w, "SES2"))["absences"] == 1


async def test_another_listing_of_the_session_clears_the_missing_mark_and_the_absences(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        w.guard = TWICE
        await w.one_pass()
        listing = listing_without(w, "SES2")
        answer_get(w, "SES2", 404)
        w.sandbox.script("GET", f"{BASE}/source/", 404)
        await w.one_pass()
        assert (await session(w, "SES2"))["absences"] == 1
        listing.pages = {None: page(*w.sandbox.live().values())}
        await w.one_pass()
        row = await session(w, "SES2")
        assert (row["absences"], row["missing_since"]) == (0, None)
        assert [version["change"] for version in await history(w, "SES2")] == ["created"]


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("action", [500, 503, 403, 429, 400, 401, "lost_before", "garbled", hanging(5)])
async def test_answer_that_is_neither_200_nor_404_decides_nothing(folder: Path, action: Any) -> None:
    async with world(folder, sessions=5, request_timeout=5) as w:
        await w.one_pass()
        w.sandbox.delete("SES2")
        answer_get(w, "SES2", action)
        for _ in range(2):
            assert (await w.one_pass()).state == "complete"
            row = await session(w, "SES2")
            assert (row["absences"], row["deleted_at"]) == (0, None)
            assert row["missing_since"] is not None
            assert "SES2" in await w.live()


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("fault", ["garbled", "cut", "lost_after", "error_500_after"])
async def test_200_that_cannot_be_read_decides_nothing(folder: Path, fault: Any) -> None:
    async with world(folder, sessions=5) as w:
        await w.one_pass()
        listing_without(w, "SES2")
        answer_get(w, "SES2", fault)
        await w.one_pass()
        row = await session(w, "SES2")
        assert (row["absences"], row["deleted_at"]) == (0, None)
        assert row["missing_since"] is not None


async def test_200_that_is_another_session_decides_nothing(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        await w.one_pass()
        w.sandbox.delete("SES2")
        other = w.sandbox.live()["SES3"]
        answer_get(w, "SES2", lambda _: web.json_response(other))
        await w.one_pass()
        row = await session(w, "SES2")
        assert (row["absences"], row["deleted_at"]) == (0, None)
        assert row["missing_since"] is not None


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("status", [404, 410, 500, 403])
@pytest.mark.parametrize("gone", [1, 20])
async def test_404s_do_not_count_when_no_listed_session_answers_200(folder: Path, status: int, gone: int) -> None:
    """A gateway can answer 404 to all look-ups."""
    async with world(folder, sessions=30) as w:
        await w.one_pass()
        for number in range(1, gone + 1):
            w.sandbox.delete(f"SES{number}")
        for number in (2, 3, 4):
            look_ups_break_after(w, number)
            w.sandbox.script("GET", f"{BASE}/", status, times=10**9)
            assert (await w.one_pass()).state == "complete"
            w.sandbox.scripts = type(w.sandbox.scripts)()
            w.clock.forward(60)
        assert await w.sql("SELECT id FROM sessions WHERE absences > 0 OR deleted_at IS NOT NULL") == []
        assert await w.sql("SELECT missing_sessions FROM mirror_freshness") == [{"missing_sessions": gone}]
        assert bool(w.named("absence.unproven")) == (status in {404, 410})
        assert len(await w.live()) == 30


def look_ups_break_after(w: World, pass_id: int) -> None:
    """Let the look-ups of a pass reach the sandbox until its listing is requested; later scripts answer the rest."""

    def is_before(_: object) -> bool:
        starts = [event["pass_id"] for event in w.named("pass.started")]
        return starts[-1] == pass_id and not listings(w)

    w.sandbox.requests.clear()
    w.sandbox.script(
        "GET", lambda request: request.path.startswith(f"{BASE}/") and is_before(request), lambda _: None, 99
    )


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(("answer", "unknown"), [(404, False), (500, True), (hanging(5), True), ("garbled", True)])
async def test_failed_look_up_by_source_id_is_logged_as_unknown(folder: Path, answer: Any, *, unknown: bool) -> None:
    async with world(folder, sessions=25, request_timeout=5) as w:
        await w.one_pass()
        w.sandbox.delete("SES7")
        w.sandbox.script("GET", f"{BASE}/source/", answer)
        await w.one_pass()
        assert [event["unknown"] for event in w.named("sweep.asked")] == [unknown]


async def test_one_witness_among_the_first_few_is_enough(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        await w.one_pass()
        w.sandbox.delete("SES2")
        answer_get(w, "SES5", 500)
        await w.one_pass()
        assert "SES2" not in await w.live()


async def test_failed_check_of_the_queue_does_not_stop_a_sweep_that_has_listed_a_witness(folder: Path) -> None:
    async with world(folder, sessions=40) as w:
        await w.one_pass()
        w.lookups.witness.random_place = lambda: 0.0
        for number in range(1, 11):
            w.sandbox.delete(f"SES{number}")
        with pytest.raises(AbsenceUnprovenError):
            await w.lookups.by_id(SessionId("SES1"))
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def test_pass_without_missing_sessions_makes_one_request_in_addition_to_its_pages(folder: Path) -> None:
    async with world(folder, sessions=25) as w:
        await w.one_pass()
        assert asked_for(w) == []
        await w.one_pass()
        assert asked_for(w) == ["SES1"]


async def test_source_id_of_a_deleted_session_is_linked_to_the_session_that_has_it_now(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        w.guard = TWICE
        await w.one_pass()
        source = w.sandbox.live()["SES2"]["sourceSessionId"]
        w.sandbox.delete("SES2")
        # The new session is not listed yet; only a look-up by source id can find it.
        listing = listing_without(w, "SES2")
        again = w.sandbox.create(source_session_id=source, name="made again")
        assert again["id"] not in str(listing.pages)
        await w.one_pass()
        (link,) = await w.sql("SELECT state, session_id FROM source_sessions WHERE source_session_id = ?", source)
        assert link == {"state": "linked", "session_id": again["id"]}
        assert (await w.live())[again["id"]] == "made again"
        assert [e["session_id"] for e in w.named("source.linked") if e["source_session_id"] == source] == [again["id"]]
        assert (await session(w, "SES2"))["absences"] == 1


async def test_404_by_id_and_200_by_source_id_decide_nothing(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        await w.one_pass()
        listing_without(w, "SES2")
        answer_get(w, "SES2", 404)
        for _ in range(3):
            await w.one_pass()
        row = await session(w, "SES2")
        assert (row["absences"], row["deleted_at"]) == (0, None)


async def test_session_observed_by_an_operation_during_the_pass_is_not_missing(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        await w.one_pass()

        async def adopt(_: object) -> None:
            w.clock.forward(1)
            await w.enqueue({"kind": "create", "source_session_id": "s", "name": "ours"})
            await w.push().drain()

        w.sandbox.script("GET", lambda request: request.path == BASE, adopt)
        w.sandbox.habits.listing_lag = 3600
        await w.one_pass()
        row = await w.last_pass()
        assert (row["missing"], row["deleted"]) == (0, 0)
        assert len(await w.live()) == 6


async def test_deleted_session_that_is_listed_after_the_grace_is_restored(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        w.guard = Guard(grace=120, confirmations=1, max_count=25, max_fraction=0.05)
        await w.one_pass()
        gone = w.sandbox.delete("SES2")
        await w.one_pass()
        w.clock.forward(120)
        await w.one_pass()
        assert "SES2" not in await w.live()
        w.sandbox.create(source_session_id=gone["sourceSessionId"], name=gone["name"], id="SES2")
        w.clock.forward(119)
        await w.one_pass()
        assert "SES2" not in await w.live(), "listed within the grace: a listing may lag"
        assert (await counted(w))["unchanged"] == 5
        w.clock.forward(1)
        await w.one_pass()
        assert await w.live() == w.there()
        row = await counted(w)
        assert (row["restored"], row["unchanged"]) == (1, 4)
        assert [e["session_id"] for e in w.named("session.restored")] == ["SES2"]
        versions = await history(w, "SES2")
        assert [version["change"] for version in versions] == ["created", "deleted", "restored"]
        (link,) = await w.sql(
            "SELECT state, session_id FROM source_sessions WHERE source_session_id = ?", gone["sourceSessionId"]
        )
        assert link == {"state": "linked", "session_id": "SES2"}
        shown = await session(w, "SES2")
        assert (shown["deleted_at"], shown["missing_since"], shown["absences"]) == (None, None, 0)


async def test_tombstone_that_a_look_up_by_source_id_finds_alive_is_restored_when_listed(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        await w.one_pass()
        source = w.sandbox.live()["SES2"]["sourceSessionId"]
        listing = Listing(w, {None: all_but(w, "SES2")})
        answer_get(w, "SES2", 404, times=1)
        w.sandbox.script("GET", f"{BASE}/source/{source}", 404)
        await w.one_pass()
        assert "SES2" not in await w.live()
        w.clock.forward(1)
        twin = w.sandbox.create(id="TWIN", source_session_id=source, name="twin")
        listing.pages = {None: all_but(w, "SES2")}
        await w.one_pass()
        listing.pages = {None: all_but(w, "SES2", twin["id"])}
        answer_get(w, "TWIN", 404, times=1)
        w.clock.forward(1)
        await w.one_pass()
        assert "SES2" not in await w.live()  # the answer may be older than the deletion, because look-ups lag
        listing.pages = {None: page(*w.sandbox.live().values())}
        await w.one_pass()
        assert "SES2" in await w.live()
        assert "SES2" in [e["session_id"] for e in w.named("session.restored")]


async def test_missing_session_is_live_and_marked_as_missing_in_the_views(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        w.guard = TWICE
        await w.one_pass()
        w.sandbox.delete("SES2")
        await w.one_pass()
        assert "SES2" in await w.live()
        rows = await w.sql("SELECT id FROM chat_sessions_all WHERE missing_since IS NOT NULL AND deleted_at IS NULL")
        assert rows == [{"id": "SES2"}]
        (fresh,) = await w.sql("SELECT live_sessions, missing_sessions, deleted_sessions FROM mirror_freshness")
        assert fresh == {"live_sessions": 5, "missing_sessions": 1, "deleted_sessions": 0}


async def test_session_whose_id_cannot_be_sent_is_kept_and_never_requested(folder: Path) -> None:
    async with world(folder, sessions=3) as w:
        hostile = {"id": "..", "name": "x", "sourceSessionId": ".."}
        listing = Listing(w, {None: page(*w.sandbox.live().values(), hostile)})
        await w.one_pass()
        listing.pages = {None: page(*w.sandbox.live().values())}
        for _ in range(3):
            assert (await w.one_pass()).state == "complete"
        assert ".." in await w.live()
        assert all(".." not in path for path in w.asked("GET"))


@pytest.mark.parametrize(("answer", "counted"), [({"name": None}, 0), ({"id": "SES3"}, 1), (b"<html>", 1)])
async def test_unreadable_200_with_the_id_of_the_session_clears_the_missing_mark(
    folder: Path, answer: Any, counted: int
) -> None:
    async with world(folder, sessions=5) as w:
        w.guard = Guard(grace=0, confirmations=3, max_count=5, max_fraction=0.0)
        await w.one_pass()
        listed = all_but(w, "SES2")
        Listing(w, {None: listed})
        there = w.sandbox.live()["SES2"]
        for path in (f"{BASE}/SES2", f"{BASE}/source/"):
            w.sandbox.script("GET", path, 404)
        await w.one_pass()
        assert (await session(w, "SES2"))["absences"] == 1
        body = answer if isinstance(answer, bytes) else json.dumps(there | answer).encode()
        w.sandbox.script("GET", f"{BASE}/SES2", lambda _: web.Response(body=body))
        await w.one_pass()
        row = await session(w, "SES2")
        assert (row["absences"], row["missing_since"] is None) == (counted, counted == 0)
