"""A row never goes back to an older version, whatever a late page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.sandbox import Habits
from tests.helpers.harness import World, world
from tests.pull.helpers import BASE, Listing, counted, history, page, session, wire

pytestmark = pytest.mark.both_databases


async def test_a_page_asked_before_our_own_create_does_not_undo_it(folder: Path) -> None:
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
async def test_a_page_that_lags_behind_our_own_delete_does_not_bring_the_session_back(
    folder: Path, grace: float
) -> None:
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


async def test_an_older_updated_at_does_not_replace_a_newer_one(folder: Path) -> None:
    async with world(folder) as w:
        listing = Listing(w, {None: page(wire("A", 5, name="new"))})
        await w.one_pass()
        before = await session(w, "A")
        listing.pages = {None: page(wire("A", 4, name="old"))}
        w.clock.forward(60)
        await w.one_pass()
        assert await session(w, "A") == before
        assert (await counted(w))["unchanged"] == 1


async def test_a_change_without_a_newer_updated_at_is_taken(folder: Path) -> None:
    async with world(folder) as w:
        listing = Listing(w, {None: page(wire("A", 5))})
        await w.one_pass()
        listing.pages = {None: page(wire("A", 5, name="same minute"))}
        await w.one_pass()
        assert await w.live() == {"A": "same minute"}
        listing.pages = {None: page(wire("A", name="no time at all", Updated=None))}
        await w.one_pass()
        assert await w.live() == {"A": "no time at all"}


async def test_a_listing_that_lags_shows_an_update_later_and_nothing_goes_back_in_between(folder: Path) -> None:
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
    """Let something happen between the asking for a page and its answer, which is as it was when asked."""
    items = list(w.sandbox.live().values())

    async def late(_: object) -> web.Response:
        await before_answer()
        return web.json_response(page(*items))

    assert session_id in w.sandbox.live()
    w.sandbox.script("GET", lambda request: request.path == BASE, late)


async def test_a_page_asked_before_a_look_up_of_our_own_does_not_overwrite_it(folder: Path) -> None:
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


async def test_a_page_asked_before_our_own_delete_does_not_bring_the_session_back(folder: Path) -> None:
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
