"""A row never returns to an older version, and no date freezes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import BASE, Listing, all_but, counted, history, page, session, wire

pytestmark = pytest.mark.both_databases


async def test_page_requested_before_our_own_create_does_not_undo_it(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()

        async def create_meanwhile(_: object) -> None:
            harness.clock.forward(1)
            (operation,) = await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "ours"})
            await harness.push().drain()
            assert (await harness.operation(operation))["state"] == "succeeded"

        harness.sandbox.habits.listing_lag = 3600
        harness.sandbox.script("GET", BASE, create_meanwhile)
        assert (await harness.one_pass()).state == "complete"
        row = await counted(harness)
        assert (row["seen"], row["missing"]) == (5, 0)
        assert await harness.live() == harness.there()


@pytest.mark.parametrize("grace", [120, 3600])
async def test_page_that_lags_behind_our_own_delete_does_not_restore_the_session(folder: Path, grace: float) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = type(harness.guard)(grace=grace, confirmations=1, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        harness.sandbox.habits.listing_lag = grace
        await harness.enqueue({"kind": "delete", "session_id": "SES2"})
        await harness.push().drain()
        for _ in range(3):
            harness.clock.forward(grace / 4)
            assert (await harness.one_pass()).state == "complete"
            assert (await counted(harness))["seen"] == 5
            assert "SES2" not in await harness.live()
        assert [version["change"] for version in await history(harness, "SES2")] == ["created", "deleted"]
        harness.clock.forward(grace)
        await harness.one_pass()
        assert await harness.live() == harness.there()


GRACE = 120.0


def guarded(harness: Harness) -> Harness:
    """Give a harness the grace of the default settings."""
    harness.guard = type(harness.guard)(grace=GRACE, confirmations=2, max_count=25, max_fraction=0.05)
    return harness


async def test_answer_within_the_grace_does_not_replace_a_later_date(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(guarded(harness), {None: page(wire("A", 5, name="new"))})
        await harness.one_pass()
        before = await session(harness, "A")
        listing.pages = {None: page(wire("A", 4, name="old"))}
        harness.clock.forward(GRACE / 2)
        await harness.one_pass()
        assert await session(harness, "A") == before
        assert (await counted(harness))["unchanged"] == 1


async def test_date_in_2099_freezes_a_session_for_at_most_the_grace(folder: Path) -> None:
    wrong = {"by": "USR1", "byName": "A", "at": "2099-01-01T00:00:00Z"}
    right = wire("A", 5, name="second try")
    async with open_harness(folder) as harness:
        listing = Listing(guarded(harness), {None: page(wire("A", name="first try", Updated=wrong))})
        await harness.one_pass()
        listing.pages = {None: page(right)}
        names = []
        for _ in range(3):
            harness.clock.forward(GRACE / 2)
            await harness.one_pass()
            names.append((await harness.live())["A"])
        assert names == ["first try", "second try", "second try"]
        assert (await session(harness, "A"))["updated_at"] == "2026-01-01T00:05:00.000000Z"
        assert [version["name"] for version in await history(harness, "A")] == ["first try", "second try"]


async def test_look_up_long_after_a_date_in_2099_replaces_it(folder: Path) -> None:
    async with open_harness(folder, sessions=1) as harness:
        harness.sandbox.update("SES1", name="first try", Updated={"at": "2099-01-01T00:00:00Z"})
        await harness.one_pass()
        source = harness.sandbox.update("SES1", name="second try", Updated={"at": "2026-01-01T00:00:00Z"})[
            "sourceSessionId"
        ]
        harness.clock.forward(3600)
        await harness.enqueue({"kind": "create", "source_session_id": source, "name": "second try"})
        await harness.push().drain()
        assert await harness.live() == {"SES1": "second try"}


async def test_unlisted_session_is_not_frozen_by_a_date_in_2099(folder: Path) -> None:
    async with open_harness(folder, sessions=2) as harness:
        harness.sandbox.update("SES1", name="first try", Updated={"at": "2099-01-01T00:00:00Z"})
        await guarded(harness).one_pass()
        harness.sandbox.update("SES1", name="second try", Updated={"at": "2026-01-01T00:00:00Z"})
        harness.clock.forward(3600)
        Listing(harness, {None: all_but(harness, "SES1")})
        await harness.one_pass()
        assert (await harness.live())["SES1"] == "second try"


@pytest.mark.parametrize(("seconds", "name"), [(30, "new"), (120, "old")], ids=["within the settle time", "later"])
async def test_look_up_of_an_unlisted_session_may_lag_by_the_settle_time(
    folder: Path, seconds: float, name: str
) -> None:
    async with open_harness(folder) as harness:
        harness.sandbox.script("GET", f"{BASE}/A", lambda _: web.json_response(wire("A", 4, name="old")), 9)
        listing = Listing(harness, {None: page(wire("A", 5, name="new"), wire("B"))})
        await harness.one_pass(settle=60)
        listing.pages = {None: page(wire("B"))}
        harness.clock.forward(seconds)
        assert (await harness.one_pass(settle=60)).state == "complete"
        assert (await harness.live())["A"] == name


async def test_tenant_restored_to_yesterday_is_mirrored_as_it_is(folder: Path) -> None:
    async with open_harness(folder, sessions=6) as harness:
        await guarded(harness).one_pass()
        yesterday = harness.sandbox.live()
        harness.clock.forward(86_400)
        harness.sandbox.update("SES1", name="changed today")
        harness.sandbox.delete("SES2")
        made_today = harness.sandbox.create(source_session_id="today", name="made today")["id"]
        for _ in range(3):
            await harness.one_pass()
            harness.clock.forward(300)
        assert await harness.live() == harness.there()
        listing = Listing(harness, {None: page(*yesterday.values())})
        harness.sandbox.delete(made_today)
        for _ in range(3):
            await harness.one_pass()
            harness.clock.forward(300)
        assert listing.asked
        assert await harness.live() == {session_id: item["name"] for session_id, item in yesterday.items()}
        before = yesterday["SES1"]["name"]
        assert [version["name"] for version in await history(harness, "SES1")] == [before, "changed today", before]


async def test_change_without_a_later_date_is_written(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(wire("A", 5))})
        await harness.one_pass()
        listing.pages = {None: page(wire("A", 5, name="same minute"))}
        await harness.one_pass()
        assert await harness.live() == {"A": "same minute"}
        listing.pages = {None: page(wire("A", name="no time at all", Updated=None))}
        await harness.one_pass()
        assert await harness.live() == {"A": "no time at all"}


async def test_lagging_listing_delays_an_update_and_reverts_no_row(folder: Path) -> None:
    async with open_harness(folder, sessions=5, habits=Habits(page_size=10, listing_lag=100)) as harness:
        await harness.one_pass()
        harness.sandbox.update("SES2", name="new name")
        names = []
        for _ in range(4):
            await harness.one_pass()
            names.append((await harness.live())["SES2"])
            harness.clock.forward(40)
        assert names[-1] == "new name"
        assert [version["change"] for version in await history(harness, "SES2")] == ["created", "updated"]


async def _answer_late(harness: Harness, session_id: str, before_answer: Any) -> None:
    """Run `before_answer` between the request for a page and its answer, which shows the state at the request."""
    items = list(harness.sandbox.live().values())

    async def late(_: object) -> web.Response:
        await before_answer()
        return web.json_response(page(*items))

    assert session_id in harness.sandbox.live()
    harness.sandbox.script("GET", lambda request: request.path == BASE, late)


async def test_page_requested_before_our_own_look_up_does_not_overwrite_it(folder: Path) -> None:
    async with open_harness(folder, sessions=3) as harness:
        await harness.one_pass()

        async def meanwhile() -> None:
            harness.clock.forward(1)
            harness.sandbox.update("SES2", name="newest", Updated=None)
            source = harness.sandbox.live()["SES2"]["sourceSessionId"]
            await harness.enqueue({"kind": "create", "source_session_id": source, "name": "newest"})
            await harness.push().drain()

        await _answer_late(harness, "SES2", meanwhile)
        await harness.one_pass()
        assert (await harness.live())["SES2"] == "newest"
        assert await harness.live() == harness.there()
        await counted(harness)


async def test_page_requested_before_our_own_delete_does_not_restore_the_session(folder: Path) -> None:
    async with open_harness(folder, sessions=3) as harness:
        await harness.one_pass()

        async def meanwhile() -> None:
            harness.clock.forward(1)
            await harness.enqueue({"kind": "delete", "session_id": "SES2"})
            await harness.push().drain()

        await _answer_late(harness, "SES2", meanwhile)
        await harness.one_pass()
        assert "SES2" not in await harness.live()
        await counted(harness)
