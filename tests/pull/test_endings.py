"""The end of a listing, and the state of the pass that follows from it."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy as sa
from aiohttp import web

from syncd.pull.flow import REFUSED_KEYS
from syncd.pull.retries import ATTEMPTS
from syncd.rules.retry import Backoff
from syncd.sandbox import Habits
from tests.helpers.harness import open_harness
from tests.helpers.loop_time import hanging
from tests.pull.helpers import Listing, counted, page, session, wire

pytestmark = pytest.mark.both_databases

A, B, C, D = (wire(name) for name in "ABCD")
FinalKey = Literal["absent", "null", "empty", "repeat", "empty_page"]


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("final_key", ["absent", "null", "empty", "repeat", "empty_page"])
@pytest.mark.parametrize("hollow", [False, True])
async def test_every_kind_of_last_page_makes_a_complete_pass(
    folder: Path, final_key: FinalKey, *, hollow: bool
) -> None:
    habits = Habits(page_size=10, final_key=final_key, hollow_pages=hollow, awkward_cursor=True)
    async with open_harness(folder, sessions=25, habits=habits) as harness:
        for _ in range(2):
            outcome = await harness.one_pass()
            assert (outcome.state, outcome.error) == ("complete", None)
        assert await harness.live() == harness.there()
        assert (await counted(harness))["unchanged"] == 25


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(
    ("pages", "state", "asked"),
    [
        ({None: {"Items": [A]}}, "complete", [None]),
        ({None: {"Items": [A], "lastKey": None}}, "complete", [None]),
        ({None: {"Items": [A], "lastKey": ""}}, "complete", [None]),
        ({None: {"Items": []}}, "complete", [None]),
        ({None: page(A, key="1"), "1": page()}, "complete", [None, "1"]),
        ({None: page(A, key="1"), "1": page(key="2"), "2": page(key="3"), "3": page(B)}, "complete", [None, *"123"]),
        ({None: page(key="1"), "1": page(A)}, "complete", [None, "1"]),
        ({None: page(A, key="1"), "1": page(key="1")}, "complete", [None, "1"]),
        ({None: page(A, key="1"), "1": page(A, key="1")}, "complete", [None, "1"]),
        ({None: page(A, key="1"), "1": page(B, key="1")}, "partial", [None, "1"]),
        ({None: page(A, key="1"), "1": page(B, key="2"), "2": page(key="1")}, "complete", [None, *"12"]),
        ({None: page(A, key="1"), "1": page(B, key="2"), "2": page(A, B, key="1")}, "complete", [None, *"12"]),
        ({None: page(A, key="1"), "1": page(B, key="2"), "2": page(A, C, key="1")}, "partial", [None, *"12"]),
        ({None: page(A, key="1"), "1": page(B, key="2"), "2": page({"id": "X"}, key="1")}, "partial", [None, *"12"]),
    ],
)
async def test_pass_is_partial_only_if_a_repeated_key_brings_new_sessions(
    folder: Path, pages: dict[str | None, Any], state: str, asked: list[str | None]
) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, pages)
        outcome = await harness.one_pass()
        assert outcome.state == state
        assert listing.asked == asked
        row = await counted(harness)
        assert (row["state"], row["pages"], row["error"]) == (state, len(asked), outcome.error)


@pytest.mark.parametrize("ceiling", [1, 2])
async def test_ceiling_on_pages_ends_a_pass_as_partial(folder: Path, ceiling: int) -> None:
    async with open_harness(folder, sessions=25) as harness:
        outcome = await harness.one_pass(max_pages=ceiling)
        assert outcome.state == "partial"
        row = await counted(harness)
        assert (row["pages"], row["seen"]) == (ceiling, 10 * ceiling)
        assert "ceiling" in row["error"]
        assert len(await harness.live()) == 10 * ceiling


async def test_listing_with_as_many_pages_as_the_ceiling_is_complete(folder: Path) -> None:
    async with open_harness(folder, sessions=25) as harness:
        assert (await harness.one_pass(max_pages=3)).state == "complete"


async def test_ceiling_on_time_ends_a_pass_as_partial(folder: Path) -> None:
    async with open_harness(folder) as harness:
        count = iter(range(10**6))

        def endless() -> dict[str, Any]:
            harness.clock.forward(40)
            number = next(count)
            return page(wire(f"S{number}"), key=f"{number}")

        listing = Listing(harness, defaultdict(lambda: endless))
        outcome = await harness.one_pass(max_seconds=100)
        assert outcome.state == "partial"
        assert "100 seconds" in str(outcome.error)
        assert len(listing.asked) == 3


async def test_waiting_for_a_page_does_not_go_beyond_the_ceiling_on_time(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: lambda: web.json_response({}, status=429, headers={"Retry-After": "3000"})})
        began = harness.clock.now()
        outcome = await harness.one_pass(max_seconds=7000)
        assert outcome.state == "partial"
        assert harness.clock.now() - began <= timedelta(seconds=7000)


async def test_incomplete_pass_does_not_change_the_freshness_and_finds_nothing_missing(folder: Path) -> None:
    async with open_harness(folder, sessions=25) as harness:
        await harness.one_pass()
        (fresh,) = await harness.sql("SELECT last_complete_pass_at FROM mirror_freshness")
        harness.clock.forward(100)
        harness.sandbox.delete("SES3")
        harness.sandbox.delete("SES25")
        assert (await harness.one_pass(max_pages=1)).state == "partial"
        harness.sandbox.script("GET", "/api/v3/chats/sessions", 500, times=ATTEMPTS)
        assert (await harness.one_pass()).state == "failed"
        rows = await harness.sql("SELECT state, missing, deleted FROM passes WHERE state <> 'complete'")
        assert [(row["missing"], row["deleted"]) for row in rows] == [(0, 0), (0, 0)]
        assert await harness.sql("SELECT * FROM mirror_freshness WHERE missing_sessions > 0") == []
        (after,) = await harness.sql("SELECT last_complete_pass_at FROM mirror_freshness")
        assert after == fresh
        assert len(await harness.live()) == 25


async def test_freshness_is_the_end_of_the_last_complete_pass(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        assert await harness.sql("SELECT last_complete_pass_at AS t, age_seconds AS a FROM mirror_freshness") == [
            {"t": None, "a": None}
        ]
        await harness.one_pass()
        harness.clock.forward(50)
        await harness.one_pass()
        (row,) = await harness.sql("SELECT last_complete_pass_at FROM mirror_freshness")
        assert (
            row["last_complete_pass_at"] == (await harness.last_pass())["finished_at"] == "2026-06-01T12:00:50.000000Z"
        )


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>One moment please</body></html>",
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"Items"',
        b'{"Items": null}',
        b'{"items": []}',
        b'{"Items": {}}',
        b'{"Items": [{"id": "A", "na',
        b'{"Items": [], "lastKey": 5}',
        b'{"Items": [], "lastKey": ["k"]}',
        b'{"Items": [], "lastKey": "\\ud800"}',
        b'{"Items": [], "lastKey": "\\u0000"}',
        b"[" * 100_000,
        b'{"Items": [' + b"[" * 100_000,
    ],
)
async def test_200_that_is_not_a_listing_is_an_error_and_not_an_empty_listing(folder: Path, body: bytes) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(A)})
        await harness.one_pass()
        listing.pages, listing.asked = {None: body}, []
        assert (await harness.one_pass()).state == "failed"
        assert len(listing.asked) == ATTEMPTS
        assert list(await harness.live()) == ["A"]
        assert (await session(harness, "A"))["missing_since"] is None


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("fault", ["garbled", "cut", "lost_before", "lost_after", "error_500", 502, 408, 403])
async def test_page_is_requested_again_after_a_transient_failure(folder: Path, fault: Any) -> None:
    async with open_harness(folder, sessions=25) as harness:
        harness.sandbox.script("GET", "/api/v3/chats/sessions?", fault, times=ATTEMPTS - 1)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()


async def test_page_that_takes_longer_than_the_request_timeout_is_requested_again(folder: Path) -> None:
    async with open_harness(folder, sessions=25, request_timeout=5) as harness:
        harness.sandbox.script("GET", "/api/v3/chats/sessions?", hanging(5))
        assert (await harness.one_pass()).state == "complete"


async def test_refused_credentials_end_the_pass_at_once(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: 401})
        outcome = await harness.one_pass()
        assert outcome.state == "failed"
        assert "credentials" in str(outcome.error)
        assert len(listing.asked) <= 2


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("status", [400, 404, 410, 422, 302])
async def test_refused_page_key_starts_a_new_pass_a_bounded_number_of_times(folder: Path, status: int) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(A, key="1"), "1": status})
        outcome = await harness.one_pass()
        assert outcome.state == "failed"
        assert listing.asked == [None, "1"] * (REFUSED_KEYS + 1)
        states = [row["state"] for row in await harness.sql("SELECT state FROM passes")]
        assert states == ["failed"] * (REFUSED_KEYS + 1)


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("status", [400, 404, 410, 422])
async def test_expired_page_key_fails_one_pass_and_the_next_is_complete(
    folder: Path, status: Literal[400, 404, 410, 422]
) -> None:
    async with open_harness(folder, sessions=25) as harness:
        harness.sandbox.script("GET", "/api/v3/chats/sessions?startKey", status)
        assert (await harness.one_pass()).state == "complete"
        assert [row["state"] for row in await harness.sql("SELECT state FROM passes ORDER BY id")] == [
            "failed",
            "complete",
        ]
        assert await harness.live() == harness.there()


async def test_listing_refused_at_its_first_page_is_not_started_again(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: 400})
        assert (await harness.one_pass()).state == "failed"
        assert listing.asked == [None]


async def test_retry_after_of_a_429_is_obeyed_and_does_not_count_as_a_failure(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        answer = lambda _: web.json_response({}, status=429, headers={"Retry-After": "7"})  # noqa: E731
        harness.sandbox.script("GET", "/api/v3/chats/sessions", answer, times=2 * ATTEMPTS)
        began = harness.clock.now()
        assert (await harness.one_pass(backoff=Backoff(0.5, 300))).state == "complete"
        assert harness.clock.now() - began == timedelta(seconds=7 * 2 * ATTEMPTS)


async def test_pass_that_a_rule_of_the_database_refuses_is_no_pass_of_another_replica(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        if harness.database.dialect == "sqlite":
            body = "BEGIN SELECT RAISE(ABORT, 'no passes today'); END"
            await harness.sql(f"CREATE TRIGGER no_passes BEFORE INSERT ON passes {body}")
        else:
            await harness.sql("ALTER TABLE passes ADD CONSTRAINT no_passes CHECK (id < 0)")
        with pytest.raises(sa.exc.IntegrityError, match=r"no.passes"):
            await harness.one_pass()
