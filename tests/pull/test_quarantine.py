"""Items that cannot be read are quarantined, and all other items are mirrored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import web

from tests.helpers.harness import open_harness
from tests.pull.helpers import (
    Listing,
    answer_get,
    asked_for,
    counted,
    dump,
    page,
    quarantine_rows,
    session,
    wire,
)

pytestmark = pytest.mark.both_databases
GOOD = [wire("A"), wire("B")]
BROKEN: dict[str, Any] = {
    "no name": {"id": "X", "sourceSessionId": "x"},
    "null name": wire("X", name=None),
    "number as name": wire("X", name=7),
    "no source id": {"id": "X", "name": "x"},
    "number as source id": wire("X", sourceSessionId=7),
    "list as status": wire("X", status=[]),
    "object as folder": wire("X", parentId={}),
    "text as audit": wire("X", Created="yesterday"),
    "number as user": wire("X", Created={"by": 7}),
    "lone surrogate": wire("X", name="\ud800"),
    "lone surrogate in an unknown field": wire("X", more={"deep": ["\udfff"]}),
    "lone surrogate as a key": wire("X", **{"\ud800": 1}),
    "source id too long for an index": wire("X", sourceSessionId="".join(map(chr, range(0x4E00, 0x5200)))),
    "NUL": wire("X", name="a\0b"),
    "NUL in an unknown field": wire("X", more=[{"a\0": 1}]),
    "NaN": wire("X", more=float("nan")),
    "infinity": wire("X", lastMessageAt=float("inf")),
}


@pytest.mark.parametrize("item", BROKEN.values(), ids=BROKEN.keys())
async def test_unreadable_item_is_kept_with_its_payload_and_the_rest_of_its_page_is_mirrored(
    folder: Path, item: dict[str, Any]
) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(GOOD[0], item, key="1"), "1": page(GOOD[1])})
        assert (await harness.one_pass()).state == "complete"
        assert set(await harness.live()) == {"A", "B"}
        (row,) = await quarantine_rows(harness)
        assert (row["session_id"], row["pass_id"], row["resolved_at"]) == ("X", 1, None)
        assert row["reason"]
        assert json.dumps(json.loads(row["payload"])) == json.dumps(item)
        assert (await counted(harness))["seen"] == 3
        (event,) = harness.named("item.quarantined")
        assert (event["pass_id"], event["session_id"], event["reason"]) == (1, "X", row["reason"])


RAW: dict[str, Callable[[], bytes]] = {
    "a number of thousands of digits": lambda: (
        b'{"id": "X", "name": "x", "sourceSessionId": "x", "n": %b}' % (b"9" * 9999)
    ),
    "a number without end": lambda: b'{"id": "X", "name": "x", "sourceSessionId": "x", "n": 1e999}',
    "nesting that no parser follows": lambda: (
        b'{"id": "X", "name": "x", "sourceSessionId": "x", "n": %b}' % (b'{"]": [' * 50_000 + b"]}" * 50_000)
    ),
    "nesting in the place of the name": lambda: (
        b'{"id": "X", "name": %b, "sourceSessionId": "x"}' % (b"[" * 50_000 + b"]" * 50_000)
    ),
    "bytes that are no UTF-8": lambda: b'{"id": "X", "name": "\xff\xfe", "sourceSessionId": "x"}',
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
async def test_item_that_json_parsers_reject_does_not_fail_its_page(folder: Path, raw: Callable[[], bytes]) -> None:
    async with open_harness(folder) as harness:
        body = b'{"Items": [%b, %b, %b]}' % (json.dumps(GOOD[0]).encode(), raw(), json.dumps(GOOD[1]).encode())
        answer_get(harness, "A", lambda _: web.json_response(GOOD[0]))
        Listing(harness, {None: body})
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
        assert set(await harness.live()) == {"A", "B"}
        (row,) = await quarantine_rows(harness)
        assert row["session_id"] == "X"
        json.loads(row["payload"])
        assert (await counted(harness))["seen"] == 3


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(
    "item", [{}, {"id": None}, {"id": ""}, {"id": 5, "name": "x"}, {"id": "\ud800"}, {"id": "a\0"}, None, [], "A", 7]
)
async def test_item_without_a_readable_id_makes_the_pass_partial(folder: Path, item: Any) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(*GOOD)})
        await harness.one_pass()
        harness.clock.forward(60)
        listing.pages = {None: page(GOOD[0], item)}
        outcome = await harness.one_pass()
        assert outcome.state == "partial"
        assert "no readable id" in str(outcome.error)
        row = await counted(harness)
        assert (row["seen"], row["quarantined"], row["without_id"], row["missing"]) == (1, 1, 1, 0)
        (kept,) = await quarantine_rows(harness)
        assert kept["session_id"] is None
        assert json.loads(kept["payload"]) == item
        assert (await session(harness, "B"))["missing_since"] is None
        (fresh,) = await harness.sql("SELECT last_complete_pass_at FROM mirror_freshness")
        assert fresh["last_complete_pass_at"] == "2026-06-01T12:00:00.000000Z"


@pytest.mark.parametrize("item", [wire("X", name=None), {"name": "without an id", "more": {"b": 1, "a": 2}}])
async def test_unreadable_item_in_three_passes_is_one_row_and_one_event(folder: Path, item: Any) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(*GOOD, item)})
        await harness.one_pass()
        first = await quarantine_rows(harness)
        backwards = dict(reversed(item.items()))
        if "more" in item:
            backwards["more"] = dict(reversed(item["more"].items()))
        for again in (item, backwards):
            harness.clock.forward(60)
            listing.pages = {None: page(*GOOD, again)}
            await harness.one_pass()
            assert (await counted(harness))["quarantined"] == 1
        assert await quarantine_rows(harness) == first
        assert len(first) == len(harness.named("item.quarantined")) == 1
        (fresh,) = await harness.sql("SELECT quarantined_items FROM mirror_freshness")
        assert fresh["quarantined_items"] == 1


async def test_quarantine_row_has_the_latest_payload_of_its_item(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(wire("X", name=1))})
        await harness.one_pass()
        listing.pages = {None: page(wire("X", name=2))}
        await harness.one_pass()
        (row,) = await quarantine_rows(harness)
        assert json.loads(row["payload"])["name"] == 2


async def test_quarantined_session_counts_as_seen_and_is_not_missing(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(*GOOD)})
        await harness.one_pass()
        before = await session(harness, "B")
        listing.pages = {None: page(GOOD[0], wire("B", name=None))}
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        row = await counted(harness)
        assert (row["seen"], row["quarantined"], row["missing"]) == (2, 1, 0)
        assert await session(harness, "B") == before
        assert asked_for(harness) == ["A"], "the first request of the second pass, and no other"


async def test_missing_session_that_is_listed_unreadable_is_no_longer_missing(folder: Path) -> None:
    """Its absences count from the last time that it was listed, readable or not."""
    async with open_harness(folder) as harness:
        harness.guard = type(harness.guard)(grace=0, confirmations=2, max_count=25, max_fraction=0.05)
        harness.sandbox.create(id="A", source_session_id="source of A", name="name of A")
        listing = Listing(harness, {None: page(*GOOD)})
        await harness.one_pass()
        for items in ([GOOD[0]], [GOOD[0], wire("B", name=None)], [GOOD[0]]):
            listing.pages = {None: page(*items)}
            listing.gone = {"B"} - {item["id"] for item in items}
            await harness.one_pass()
        row = await session(harness, "B")
        assert (row["absences"], row["deleted_at"]) == (1, None)
        await harness.one_pass()
        assert (await session(harness, "B"))["deleted_at"] is not None


@pytest.mark.parametrize("same_pass", [True, False])
async def test_later_readable_version_resolves_the_item(folder: Path, *, same_pass: bool) -> None:
    async with open_harness(folder) as harness:
        good, bad = wire("X"), wire("X", name=None)
        listing = Listing(harness, {None: page(GOOD[0], bad, key="1"), "1": page(good) if same_pass else page()})
        await harness.one_pass()
        harness.clock.forward(1)
        if not same_pass:
            listing.pages = {None: page(GOOD[0], good)}
            await harness.one_pass()
        (row,) = await quarantine_rows(harness)
        assert row["resolved_at"] is not None
        counts = await counted(harness)
        assert (counts["seen"], counts["quarantined"]) == (2, 0)
        assert "X" in await harness.live()


async def test_item_that_a_complete_pass_no_longer_lists_is_resolved(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(GOOD[0], wire("X", name=None))})
        await harness.one_pass()
        listing.pages = {None: page(GOOD[0], {"no": "id"})}
        await harness.one_pass()
        assert [row["resolved_at"] for row in await quarantine_rows(harness)] == [None, None]
        listing.pages = {None: page(GOOD[0])}
        await harness.one_pass()
        assert None not in [row["resolved_at"] for row in await quarantine_rows(harness)]


async def test_readable_and_unreadable_versions_of_a_session_on_one_page_count_once(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(wire("X"), wire("X", name=None), wire("X", name=3))})
        for _ in range(3):
            assert (await harness.one_pass()).state == "complete"
            counts = await counted(harness)
            assert (counts["seen"], counts["quarantined"]) == (1, 0)
        assert len(await quarantine_rows(harness)) == 1


@pytest.mark.parametrize("shapes", ["gbg", "bgb", "gbgbg", "bgbgb", "bbgg", "ggbb"])
async def test_session_that_is_readable_only_on_some_pages_counts_once(folder: Path, shapes: str) -> None:
    async with open_harness(folder) as harness:
        keys = [None, *map(str, range(1, len(shapes)))]
        pages = {
            key: page(wire("X") if shape == "g" else wire("X", name=None), key=following)
            for key, following, shape in zip(keys, [*keys[1:], None], shapes, strict=True)
        }
        Listing(harness, pages)
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
            counts = await counted(harness)
            assert (counts["seen"], counts["quarantined"]) == (1, 0)


async def test_huge_name_is_stored_whole(folder: Path) -> None:
    async with open_harness(folder) as harness:
        name = "ü" * 1_000_000
        Listing(harness, {None: page(wire("A", name=name))})
        assert (await harness.one_pass()).state == "complete"
        assert (await harness.live())["A"] == name


@pytest.mark.sqlite  # it uses a function of SQLite
async def test_unchanged_unreadable_item_writes_nothing_in_the_next_pass(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(*GOOD, wire("X", name=None))})
        await harness.one_pass()
        before = await dump(harness)
        total = await harness.database.write(lambda c: c.execute(sa.text("SELECT total_changes()")).scalar_one())
        harness.clock.forward(60)
        await harness.one_pass()
        after = await harness.database.write(lambda c: c.execute(sa.text("SELECT total_changes()")).scalar_one())
        assert await dump(harness) == before
        assert after - total <= 6  # the rows of the pass itself


async def test_session_whose_id_is_too_long_for_an_index_does_not_affect_the_others(folder: Path) -> None:
    long = "".join(map(chr, range(0x4E00, 0x5400)))
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(wire("A"), wire(long), wire("C"))})
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
            assert list(await harness.live()) == ["A", "C"]
        (row,) = await harness.sql("SELECT session_id, reason FROM quarantine")
        reason = (
            f"id and sourceSessionId have {4608 + len(wire(long)['sourceSessionId'].encode())} bytes together; "
            "at most 2600 can be stored"
        )
        assert row == {"session_id": long, "reason": reason}


@pytest.mark.parametrize("order", ["gb", "bg", "gbg", "bgb"])
async def test_item_readable_on_one_page_and_unreadable_on_another_keeps_its_row(folder: Path, order: str) -> None:
    async with open_harness(folder) as harness:
        keys = [None, *map(str, range(1, len(order)))]
        shapes = {"g": wire("X"), "b": wire("X", name=None)}
        Listing(
            harness,
            {key: page(shapes[o], key=after) for key, after, o in zip(keys, [*keys[1:], None], order, strict=True)},
        )
        for _ in range(4):
            harness.clock.forward(300)
            assert (await harness.one_pass()).state == "complete"
            counts = await counted(harness)
            assert (counts["seen"], counts["quarantined"]) == (1, 0)
        (row,) = await quarantine_rows(harness)
        assert (row["resolved_at"] is None) == (order[-1] == "b")
        assert len(harness.named("item.quarantined")) == 1


async def test_item_that_is_unreadable_again_after_readable_passes_is_a_new_row(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness)
        for items in ([wire("X", name=None)], [wire("X")], [wire("X")], [wire("X", name=None)]):
            harness.clock.forward(300)
            listing.pages = {None: page(*items)}
            await harness.one_pass()
        assert [row["resolved_at"] is None for row in await quarantine_rows(harness)] == [False, True]
        assert len(harness.named("item.quarantined")) == 2
