"""The counters and rows of a pass are correct for every listing, also one that changes while it is read."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.harness import open_harness
from tests.pull.helpers import Listing, counted, page, session, wire

pytestmark = pytest.mark.both_databases

IDS = "ABCDE"
good = st.builds(lambda name, at: wire(name, at, name=f"{name}{at}"), st.sampled_from(IDS), st.integers(0, 5))
bad = st.builds(lambda name, at: wire(name, at, name=at), st.sampled_from(IDS), st.integers(0, 1))
nameless = st.builds(lambda number: {"number": number}, st.integers(0, 1))
passes_of_pages = st.lists(
    st.lists(st.lists(st.one_of(good, good, bad, nameless), max_size=4), min_size=1, max_size=5), min_size=1, max_size=3
)


def _listing_of(pages: list[list[Any]]) -> dict[str | None, Any]:
    keys = [None, *map(str, range(1, len(pages)))]
    return {
        key: page(*items, key=following) for key, items, following in zip(keys, pages, [*keys[1:], None], strict=True)
    }


@pytest.mark.slow
@pytest.mark.timeout(240)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(listings=passes_of_pages)
async def test_counters_add_up_for_every_listing(listings: list[list[list[Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_harness(Path(folder)) as harness:
            await harness.empty()
            listing = Listing(harness)
            for pages in listings:
                listing.pages = _listing_of(pages)
                harness.clock.forward(60)
                outcome = await harness.one_pass()
                row = await counted(harness)
                ids = {item["id"] for items in pages for item in items if "id" in item}
                assert row["seen"] == len(ids)
                nameless_ones = {item["number"] for items in pages for item in items if "id" not in item}
                assert row["without_id"] == len(nameless_ones)
                if nameless_ones:
                    assert outcome.state == "partial"
                listed = {item["id"] for items in pages for item in items if isinstance(item.get("name"), str)}
                assert listed <= set(await harness.live())
                for session_id in listed:
                    newest = max(
                        item["Updated"]["at"]
                        for items in pages
                        for item in items
                        if item.get("id") == session_id and isinstance(item["name"], str)
                    )
                    assert (await session(harness, session_id))["updated_at"] >= f"{newest[:-1]}000Z"


async def test_session_that_is_listed_on_two_pages_counts_once(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(wire("A"), wire("B"), key="1"), "1": page(wire("B"), wire("C"))})
        await harness.one_pass()
        row = await counted(harness)
        assert (row["seen"], row["inserted"]) == (3, 3)
        await harness.one_pass()
        assert (await counted(harness))["unchanged"] == 3
        listing.pages = {None: page(wire("A"), wire("B"), key="1"), "1": page(wire("B", 1, name="moved"), wire("C"))}
        await harness.one_pass()
        row = await counted(harness)
        assert (row["seen"], row["updated"], row["unchanged"]) == (3, 1, 2)


async def test_session_that_is_twice_on_one_page_counts_once_and_its_newer_version_stays(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(wire("A", 2, name="new"), wire("A", 1, name="old"))})
        for _ in range(2):
            await harness.one_pass()
            assert (await counted(harness))["seen"] == 1
            assert await harness.live() == {"A": "new"}


@pytest.mark.usefixtures("_a_page_at_a_time")
async def test_session_updated_by_a_pass_an_operation_and_the_pass_again_counts_as_one_update(folder: Path) -> None:
    """The write of an operation between two pages of a pass must not make a counter negative."""
    async with open_harness(folder) as harness:
        harness.sandbox.create(id="A", source_session_id="source of A", name="a")
        listing = Listing(harness, {None: page(wire("A"))})
        await harness.one_pass()
        first, third = wire("A", 1, name="first"), wire("A", name="third", Updated={"at": "2027-01-01T00:00:00Z"})
        listing.pages = {None: page(first, key="1"), "1": page(third)}
        with anyio.CancelScope() as scope:
            pull = harness.pull()
            pull.on_page = lambda _: scope.cancel()
            await pull.run()
        harness.clock.forward(1)
        harness.sandbox.update("A", name="second")
        await harness.enqueue({"kind": "create", "source_session_id": "source of A", "name": "second"})
        await harness.push().drain()
        assert await harness.live() == {"A": "second"}
        harness.clock.forward(1)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == {"A": "third"}
        row = await counted(harness)
        assert (row["seen"], row["updated"], row["unchanged"]) == (1, 1, 0)


@pytest.mark.parametrize("order", ["created", "updated", "newest", "id"])
async def test_sessions_that_move_between_pages_while_they_are_read_are_neither_lost_nor_counted_twice(
    folder: Path, order: Any
) -> None:
    async with open_harness(folder, sessions=45) as harness:
        harness.sandbox.habits.order = order
        await harness.one_pass()
        steps = iter(range(1, 100))

        def move(_: object) -> None:
            step = next(steps)
            harness.sandbox.update(f"SES{step}", name=f"moved {step}")
            harness.sandbox.update(f"SES{46 - step}", name=f"moved {46 - step}")
            if step % 2:
                harness.sandbox.create(source_session_id=f"new {step}", name="new")

        harness.sandbox.script("GET", "/api/v3/chats/sessions?", move, times=8)
        assert (await harness.one_pass()).state == "complete"
        await counted(harness)
        harness.sandbox.scripts = type(harness.sandbox.scripts)()
        assert (await harness.one_pass()).state == "complete"
        await counted(harness)
        assert await harness.live() == harness.there()
        assert await harness.sql("SELECT * FROM sessions WHERE deleted_at IS NOT NULL") == []


async def test_session_moved_behind_the_cursor_is_not_deleted(folder: Path) -> None:
    async with open_harness(folder) as harness:
        harness.sandbox.create(id="A", source_session_id="a", name="a")
        harness.sandbox.create(id="B", source_session_id="b", name="b")
        listing = Listing(harness, {None: page(*harness.sandbox.live().values())})
        await harness.one_pass()
        listing.pages = {None: page(harness.sandbox.live()["B"])}
        assert (await harness.one_pass()).state == "complete"
        row = await counted(harness)
        assert (row["seen"], row["missing"], row["deleted"]) == (1, 0, 0)
        assert (await session(harness, "A"))["missing_since"] is None
