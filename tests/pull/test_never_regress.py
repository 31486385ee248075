"""A row never returns to an older version, and no date freezes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.sandbox import Habits
from tests.helpers.harness import World, world
from tests.pull.helpers import BASE, Listing, all_but, counted, history, page, session, wire

pytestmark = pytest.mark.both_databases


async def test_page_requested_before_our_own_create_does_not_undo_it(folder: Path) -> None:
    async with world(folder, sessions=5) as w:
        await w.one_pass()

        async def create_meanwhile(_: object) -> None:
            w.clock.forward(1)
            (operation,) = await w.enqueue({"kind": "create", "source_session_id": "s", "name": "ours"})
            await w.push().drain()
            assert (await w.operation(operation))["state"] == "succeeded"

        w.sandbox.habits.listing_lag = 3600
        w.sandbox.script("GET", BASE, create_meanwhile)
        assert (await w.one_pass()).state == "complete"
        row = await counted(w)
        assert (row["seen"], row["missing"]) == (5, 0)
        assert await w.live() == w.there()


@pytest.mark.parametrize("grace", [120, 3600])
async def test_page_that_lags_behind_our_own_delete_does_not_restore_the_session(folder: Path, grace: float) -> None:
    async with world(folder, sessions=5) as w:
        w.guard = type(w.guard)(grace=grace, confirmations=1, max_count=25, max_fraction=0.05)
        await w.one_pass()
        w.sandbox.habits.listing_lag = grace
        await w.enqueue({"kind": "delete", "session_id": "SES2"})
        await w.push().drain()
        for _ in range(3):
            w.clock.forward(grace / 4)
            assert (await w.one_pass()).state == "complete"
            assert (await counted(w))["seen"] == 5
            assert "SES2" not in await w.live()
        assert [version["change"] for version in await history(w, "SES2")] == ["created", "deleted"]
        w.clock.forward(grace)
        await w.one_pass()
        assert await w.live() == w.there()


GRACE = 120.0


def guarded(w: World) -> World:
    """Give a world the grace of the default settings."""
    w.guard = type(w.guard)(grace=GRACE, confirmations=2, max_count=25, max_fraction=0.05)
    return w


async def test_answer_within_the_grace_does_not_replace_a_later_date(folder: Path) -> None:
    async with world(folder) as w:
        listing = Listing(guarded(w), {None: page(wire("A", 5, name="new"))})
        await w.one_pass()
        before = await session(w, "A")
        listing.pages = {None: page(wire("A", 4, name="old"))}
        w.clock.forward(GRACE / 2)
        await w.one_pass()
        assert await session(w, "A") == before
        assert (await counted(w))["unchanged"] == 1


async def test_date_in_2099_freezes_a_session_for_at_most_the_grace(folder: Path) -> None:
    wrong = {"by": "USR1", "byName": "A", "at": "2099-01-01T00:00:00Z"}
    right = wire("A", 5, name="second try")
    async with world(folder) as w:
        listing = Listing(guarded(w), {None: page(wire("A", name="first try", Updated=wrong))})
        await w.one_pass()
        listing.pages = {None: page(right)}
        names = []
        for _ in range(3):
            w.clock.forward(GRACE / 2)
            await w.one_pass()
            names.append((await w.live())["A"])
        assert names == ["first try", "second try", "second try"]
        assert (await session(w, "A"))["updated_at"] == "2026-01-01T00:05:00.000000Z"
        assert [version["name"] for version in await history(w, "A")] == ["first try", "second try"]


async def test_look_up_long_after_a_date_in_2099_replaces_it(folder: Path) -> None:
    async with world(folder, sessions=1) as w:
        w.sandbox.update("SES1", name="first try", Updated={"at": "2099-01-01T00:00:00Z"})
        await w.one_pass()
        source = w.sandbox.update("SES1", name="second try", Updated={"at": "2026-01-01T00:00:00Z"})["sourceSessionId"]
        w.clock.forward(3600)
        await w.enqueue({"kind": "create", "source_session_id": source, "name": "second try"})
        await w.push().drain()
        assert await w.live() == {"SES1": "second try"}


async def test_unlisted_session_is_not_frozen_by_a_date_in_2099(folder: Path) -> None:
    async with world(folder, sessions=2) as w:
        w.sandbox.update("SES1", name="first try", Updated={"at": "2099-01-01T00:00:00Z"})
        await guarded(w).one_pass()
        w.sandbox.update("SES1", name="second try", Updated={"at": "2026-01-01T00:00:00Z"})
        w.clock.forward(3600)
        Listing(w, {None: all_but(w, "SES1")})
        await w.one_pass()
        assert (await w.live())["SES1"] == "second try"


@pytest.mark.parametrize(("seconds", "name"), [(30, "new"), (120, "old")], ids=["within the settle time", "later"])
async def test_look_up_of_an_unlisted_session_may_lag_by_the_settle_time(
    folder: Path, seconds: float, name: str
) -> None:
    async with world(folder) as w:
        w.sandbox.script("GET", f"{BASE}/A", lambda _: web.json_response(wire("A", 4, name="old")), 9)
        listing = Listing(w, {None: page(wire("A", 5, name="new"), wire("B"))})
        await w.one_pass(settle=60)
        listing.pages = {None: page(wire("B"))}
        w.clock.forward(seconds)
        assert (await w.one_pass(settle=60)).state == "complete"
        assert (await w.live())["A"] == name


async def test_tenant_restored_to_yesterday_is_mirrored_as_it_is(folder: Path) -> None:
    async with world(folder, sessions=6) as w:
        await guarded(w).one_pass()
        yesterday = w.sandbox.live()
        w.clock.forward(86_400)
        w.sandbox.update("SES1", name="changed today")
        w.sandbox.delete("SES2")
        made_today = w.sandbox.create(source_session_id="today", name="made today")["id"]
        for _ in range(3):
            await w.one_pass()
            w.clock.forward(300)
        assert await w.live() == w.there()
        listing = Listing(w, {None: page(*yesterday.values())})
        w.sandbox.delete(made_today)
        for _ in range(3):
            await w.one_pass()
            w.clock.forward(300)
        assert listing.asked
        assert await w.live() == {session_id: one["name"] for session_id, one in yesterday.items()}
        before = yesterday["SES1"]["name"]
        assert [version["name"] for version in await history(w, "SES1")] == [before, "changed today", before]


async def test_change_without_a_later_date_is_written(folder: Path) -> None:
    async with world(folder) as w:
        listing = Listing(w, {None: page(wire("A", 5))})
        await w.one_pass()
        listing.pages = {None: page(wire("A", 5, name="same minute"))}
        await w.one_pass()
        assert await w.live() == {"A": "same minute"}
        listing.pages = {None: page(wire("A", name="no time at all", Updated=None))}
        await w.one_pass()
        assert await w.live() == {"A": "no time at all"}


async def test_lagging_listing_delays_an_update_and_reverts_no_row(folder: Path) -> None:
    async with world(folder, sessions=5, habits=Habits(page_size=10, listing_lag=100)) as w:
        await w.one_pass()
        w.sandbox.update("SES2", name="new name")
        names = []
        for _ in range(4):
            await w.one_pass()
            names.append((await w.live())["SES2"])
            w.clock.forward(40)
        assert names[-1] == "new name"
        assert [version["change"] for version in await history(w, "SES2")] == ["created", "updated"]


async def _answer_late(w: World, session_id: str, before_answer: Any) -> None:
    """Run `before_answer` between the request for a page and its answer, which shows the state at the request."""
    items = list(w.sandbox.live().values())

    async def late(_: object) -> web.Response:
        await before_answer()
        return web.json_response(page(*items))

    assert session_id in w.sandbox.live()
    w.sandbox.script("GET", lambda request: request.path == BASE, late)


async def test_page_requested_before_our_own_look_up_does_not_overwrite_it(folder: Path) -> None:
    async with world(folder, sessions=3) as w:
        await w.one_pass()

        async def meanwhile() -> None:
            w.clock.forward(1)
            w.sandbox.update("SES2", name="newest", Updated=None)
            source = w.sandbox.live()["SES2"]["sourceSessionId"]
            await w.enqueue({"kind": "create", "source_session_id": source, "name": "newest"})
            await w.push().drain()

        await _answer_late(w, "SES2", meanwhile)
        await w.one_pass()
        assert (await w.live())["SES2"] == "newest"
        assert await w.live() == w.there()
        await counted(w)


async def test_page_requested_before_our_own_delete_does_not_restore_the_session(folder: Path) -> None:
    async with world(folder, sessions=3) as w:
        await w.one_pass()

        async def meanwhile() -> None:
            w.clock.forward(1)
            await w.enqueue({"kind": "delete", "session_id": "SES2"})
            await w.push().drain()

        await _answer_late(w, "SES2", meanwhile)
        await w.one_pass()
        assert "SES2" not in await w.live()
        await counted(w)
