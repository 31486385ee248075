"""Quarantined items that an operator accepts or replays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from syncd.mirror.store import quarantine
from syncd.mirror.store.replay import replay
from syncd.rules.deletion import Guard
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import (
    Listing,
    counted,
    page,
    quarantine_rows,
    run_until,
    session,
    wire,
)

pytestmark = pytest.mark.both_databases


async def test_replay_mirrors_items_that_are_readable_now_and_keeps_the_others(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(wire("A"), wire("X", name=None), wire("Y", name=None))})
        await harness.one_pass()
        await harness.sql("UPDATE quarantine SET payload = ? WHERE session_id = 'X'", json.dumps(wire("X")))
        assert await harness.database.write(lambda c: replay(c, harness.clock.now())) == (1, 1)
        assert set(await harness.live()) == {"A", "X"}
        assert [row["resolved_at"] is None for row in await quarantine_rows(harness)] == [False, True]
        assert await harness.database.write(lambda c: replay(c, harness.clock.now())) == (0, 1)


async def test_replay_does_not_overwrite_a_newer_version(folder: Path) -> None:
    async with open_harness(folder) as harness:
        old = wire("X", 1, name="old")
        listing = Listing(harness, {None: page(wire("A"), old | {"name": None})})
        await harness.one_pass()
        await harness.sql("UPDATE quarantine SET payload = ?", json.dumps(old))
        listing.pages = {None: page(wire("A"), {"no": "id"}, wire("X", 2, name="new"))}
        harness.clock.forward(60)
        await harness.one_pass()
        await harness.sql("UPDATE quarantine SET resolved_at = NULL WHERE session_id = 'X'")
        before = await session(harness, "X")
        await harness.database.write(lambda c: replay(c, harness.clock.now()))
        assert await session(harness, "X") == before


@pytest.mark.usefixtures("_a_page_at_a_time")
async def test_item_replayed_during_a_pass_is_not_missing_in_it(folder: Path) -> None:
    async with open_harness(folder) as harness:
        items = [wire(f"X{n}", name=None) for n in range(5)]
        listing = Listing(harness, {None: page(wire("A"), wire("B"), *items, key="k"), "k": page()})
        harness.guard = Guard(grace=120, confirmations=2, max_count=0, max_fraction=0.0)

        async def repaired() -> None:
            await harness.sql("UPDATE quarantine SET payload = replace(payload, 'null', '\"n\"')")
            await harness.database.write(lambda c: replay(c, harness.clock.now()))

        await run_until(harness, pages=1)
        await repaired()
        assert (await harness.one_pass()).state == "complete"
        assert listing.asked
        assert {row["missing_since"] for row in await harness.sql("SELECT missing_since FROM sessions")} == {None}


def page_without_ids(*others: dict[str, Any]) -> dict[str, Any]:
    """Return a page with an item without an id, one whose id is a number, and a readable one."""
    nameless = {"name": "An item without an id", "sourceSessionId": "b-1"}
    numbered = {"id": 17, "name": "An id that is a number", "sourceSessionId": "b-2"}
    return page(nameless, numbered, wire("A"), *others)


async def accept(harness: Harness, *row_ids: int) -> str | None:
    return await harness.database.write(lambda c: quarantine.accept(c, row_ids, now=harness.clock.now(), by="alice"))


async def open_items(harness: Harness) -> int:
    (fresh,) = await harness.sql("SELECT quarantined_items FROM mirror_freshness")
    return int(fresh["quarantined_items"])


async def test_accepted_items_without_an_id_no_longer_make_a_pass_partial(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page_without_ids()})
        outcome = await harness.one_pass()
        assert (outcome.state, await open_items(harness)) == ("partial", 2)
        assert str(outcome.error).endswith("run: syncd quarantine accept 1 2")
        assert await accept(harness, 1) is None
        outcome = await harness.one_pass()
        assert (outcome.state, await open_items(harness)) == ("partial", 1)
        assert str(outcome.error).endswith("run: syncd quarantine accept 2")
        assert await accept(harness, 1, 2) is None
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
            row = await counted(harness)
            assert (row["seen"], row["quarantined"], row["without_id"]) == (1, 2, 2)
        assert await open_items(harness) == 0
        assert len(harness.named("item.quarantined")) == len(await quarantine_rows(harness)) == 2
        actions = await harness.sql("SELECT by, action, subject FROM operator_actions ORDER BY id")
        assert actions == [
            {"by": "alice", "action": "accept", "subject": f"quarantine item {number}"} for number in (1, 2)
        ]


@pytest.mark.usefixtures("_a_page_at_a_time")
async def test_items_accepted_during_a_pass_count_as_accepted_in_it(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page_without_ids() | {"lastKey": "k"}, "k": page(wire("B"))})
        await run_until(harness, pages=1)
        assert await accept(harness, 1, 2) is None
        assert (await harness.one_pass()).state == "complete"
        assert len(harness.named("pass.started")) == 2


async def test_accepted_item_that_changes_is_a_new_item(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(wire("A"), {"no": "id"}, wire("X", name=1))})
        await harness.one_pass()
        assert await accept(harness, 1, 2) is None
        assert (await harness.one_pass()).state == "complete"
        listing.pages = {None: page(wire("A"), {"no": "id", "more": 1}, wire("X", name=2))}
        assert (await harness.one_pass()).state == "partial"
        assert [(row["session_id"], row["accepted_at"] is None) for row in await quarantine_rows(harness)] == [
            (None, False), ("X", True), (None, True),
        ]  # fmt: skip
        assert len(harness.named("item.quarantined")) == 4
        assert await open_items(harness) == 2


async def test_item_stays_accepted_when_it_returns_unchanged(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(wire("A"), {"no": "id"})})
        await harness.one_pass()
        await accept(harness, 1)
        for items in ([wire("A")], [wire("A")], [wire("A"), {"no": "id"}]):
            harness.clock.forward(60)
            listing.pages = {None: page(*items)}
            assert (await harness.one_pass()).state == "complete"
        assert await open_items(harness) == 0
        assert len(harness.named("item.quarantined")) == 1


@pytest.mark.parametrize(("row_ids", "reason"), [((1, 7), "no quarantine item 7"), ((1, 2), "item 2 is resolved")])
async def test_items_are_accepted_all_or_none(folder: Path, row_ids: tuple[int, ...], reason: str) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page({"no": "id"}, {"no": "name"})})
        await harness.one_pass()
        await harness.database.write(lambda c: quarantine.resolve(c, 2, harness.clock.now()))
        assert reason in str(await accept(harness, *row_ids))
        assert [row["accepted_at"] for row in await quarantine_rows(harness)] == [None, None]
        assert await harness.sql("SELECT 1 FROM operator_actions") == []


async def test_accepted_item_that_can_be_read_now_is_replayed(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(wire("X", name=None))})
        await harness.one_pass()
        await accept(harness, 1)
        await harness.sql("UPDATE quarantine SET payload = ?", json.dumps(wire("X")))
        assert await harness.database.write(lambda c: replay(c, harness.clock.now())) == (1, 0)
        assert set(await harness.live()) == {"X"}
