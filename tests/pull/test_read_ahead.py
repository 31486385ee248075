"""Pages that are requested before the listing has returned their keys."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from syncd.albert import AlbertConnectError, AlbertException, BadRequestError, TooManyRequestsError
from syncd.pull.read_ahead import ReadAhead
from tests.helpers.harness import Harness, open_harness
from tests.helpers.virtual_clock import VirtualClock
from tests.pull.helpers import Listing, counted, page, wire

KEYS = ["k1", "k2", "k3", "k4", "k5"]


class Requests:
    """A server that the test controls: each request waits until `answer` is called with its key."""

    def __init__(self) -> None:
        self.sent: list[str | None] = []
        self.given_up: list[str | None] = []
        self._answers: dict[str | None, anyio.Event] = {}
        self._errors: dict[str | None, AlbertException] = {}

    async def __call__(self, key: str | None) -> bytes:
        self.sent.append(key)
        try:
            await self._event(key).wait()
        except anyio.get_cancelled_exc_class():
            self.given_up.append(key)
            raise
        if key in self._errors:
            raise self._errors.pop(key)
        return f"page {key}".encode()

    def answer(self, *keys: str | None) -> None:
        for key in keys:
            self._event(key).set()

    def refuse(self, key: str | None, error: AlbertException | None = None) -> None:
        self._errors[key] = error or AlbertConnectError("refused")
        self._event(key).set()

    def _event(self, key: str | None) -> anyio.Event:
        return self._answers.setdefault(key, anyio.Event())


@asynccontextmanager
async def reading(pages: int = 3) -> AsyncIterator[tuple[ReadAhead, Requests]]:
    requests = Requests()
    async with anyio.create_task_group() as group:
        yield ReadAhead(requests, VirtualClock(), keys=KEYS, pages=pages, group=group), requests
        group.cancel_scope.cancel()


async def test_pages_after_a_confirmed_key_are_requested_with_its_page() -> None:
    async with reading() as (ahead, requests):
        requests.answer(None, *KEYS)
        assert (await ahead.page(None)).body == b"page None"
        assert requests.sent == [None]  # the keys of the last pass are not confirmed yet
        assert (await ahead.page("k1")).body == b"page k1"
        await anyio.wait_all_tasks_blocked()
        assert requests.sent == [None, "k1", "k2", "k3", "k4"]
        assert (await ahead.page("k2")).body == b"page k2"
        await anyio.wait_all_tasks_blocked()
        assert requests.sent == [None, "k1", "k2", "k3", "k4", "k5"]  # and no page twice


async def test_pages_are_used_in_the_order_in_which_they_were_requested() -> None:
    async with reading() as (ahead, requests):
        requests.answer(None, *KEYS)
        asked = [(await ahead.page(key)).asked_at for key in (None, *KEYS)]
        assert asked == sorted(asked)


async def test_no_page_is_requested_ahead_if_reading_ahead_is_off() -> None:
    async with reading(pages=0) as (ahead, requests):
        requests.answer("k1")
        await ahead.page("k1")
        await anyio.wait_all_tasks_blocked()
        assert requests.sent == ["k1"]


async def test_page_is_used_only_if_the_listing_returns_its_key() -> None:
    async with reading() as (ahead, requests):
        requests.answer("k1", "k2", "new")
        await ahead.page("k1")
        await anyio.wait_all_tasks_blocked()
        assert (await ahead.page("new")).body == b"page new"
        await anyio.wait_all_tasks_blocked()
        assert requests.given_up == ["k3", "k4"]
        requests.sent.clear()
        assert (
            await ahead.page("k2")
        ).body == b"page k2"  # its early request was older than that of the page before it
        assert requests.sent[0] == "k2"


async def test_page_is_requested_again_after_its_early_request_failed() -> None:
    async with reading() as (ahead, requests):
        requests.answer("k1", "k3")
        requests.refuse("k2")
        await ahead.page("k1")
        await anyio.wait_all_tasks_blocked()
        assert (await ahead.page("k2")).body == b"page k2"
        assert requests.sent == ["k1", "k2", "k3", "k4", "k2"]
        await ahead.page("k3")
        await anyio.wait_all_tasks_blocked()
        assert requests.sent[5:] == ["k3"]  # from now on pages are requested one by one


async def test_repeated_request_for_a_page_requests_no_page_ahead() -> None:
    async with reading() as (ahead, requests):
        requests.refuse("k1")
        with pytest.raises(AlbertConnectError):
            await ahead.page("k1")
        requests.sent.clear()
        await ahead.page("k1")
        await anyio.wait_all_tasks_blocked()
        assert requests.sent == ["k1"]
        assert set(requests.given_up) <= {"k2", "k3", "k4"}


async def test_page_that_is_begun_is_requested_once() -> None:
    async with reading() as (ahead, requests):
        requests.answer("new")
        ahead.begin("new")
        await anyio.wait_all_tasks_blocked()
        assert requests.sent == ["new"]
        assert (await ahead.page("new")).body == b"page new"
        assert requests.sent == ["new"]


async def test_error_of_a_page_that_was_begun_is_that_of_its_request() -> None:
    async with reading() as (ahead, requests):
        requests.refuse("new")
        ahead.begin("new")
        with pytest.raises(AlbertConnectError):
            await ahead.page("new")
        assert requests.sent == ["new"]
        assert (await ahead.page("new")).body == b"page new"


async def test_early_pages_are_dropped_if_the_next_page_is_another_one() -> None:
    async with reading() as (ahead, requests):
        requests.answer(*KEYS, "new")
        await ahead.page("k1")
        await anyio.wait_all_tasks_blocked()
        ahead.begin("new")
        await ahead.page("new")
        requests.sent.clear()
        await ahead.page("k3")
        assert requests.sent[0] == "k3"


async def test_no_page_is_requested_ahead_after_the_next_page_was_refused() -> None:
    async with reading() as (ahead, requests):
        requests.refuse("k1")
        ahead.begin("k1")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(AlbertConnectError):
            await ahead.page("k1")
        await anyio.wait_all_tasks_blocked()
        assert requests.sent == ["k1"]


async def test_early_page_for_which_albert_asks_for_a_wait_is_not_requested_at_once_again() -> None:
    async with reading() as (ahead, requests):
        requests.answer("k1")
        requests.refuse("k2", TooManyRequestsError("slow down", status_code=429, retry_after=60.0))
        await ahead.page("k1")
        with pytest.raises(TooManyRequestsError):
            await ahead.page("k2")
        assert requests.sent.count("k2") == 1


async def test_nothing_is_requested_ahead_after_a_page_ahead_has_failed() -> None:
    async with reading() as (ahead, requests):
        requests.answer("k1", "k2")
        requests.refuse("k4", TooManyRequestsError("slow down", status_code=429, retry_after=60.0))
        await ahead.page("k1")
        await anyio.wait_all_tasks_blocked()
        await ahead.page("k2")
        ahead.begin("new")
        await anyio.wait_all_tasks_blocked()
        assert requests.sent == ["k1", "k2", "k3", "k4"]


async def test_page_ahead_that_is_refused_is_requested_again_although_it_names_a_wait() -> None:
    async with reading() as (ahead, requests):
        requests.answer("k1")
        requests.refuse("k2", BadRequestError("no such key", status_code=400, retry_after=1.0))
        await ahead.page("k1")
        assert (await ahead.page("k2")).body == b"page k2"


async def test_page_that_was_requested_before_the_page_before_it_is_requested_again() -> None:
    async with reading() as (ahead, requests):
        requests.answer(*KEYS, "k6", "k7")
        await ahead.page("k1")  # k2, k3 and k4 are requested with it
        await anyio.wait_all_tasks_blocked()
        await ahead.page("k4")
        requests.sent.clear()
        await ahead.page("k2")
        assert requests.sent[0] == "k2"


async def test_nothing_is_begun_after_a_page_that_was_requested_again() -> None:
    async with reading() as (ahead, requests):
        requests.answer("k1")
        await ahead.page("k1")
        await ahead.page("k1")
        requests.sent.clear()
        ahead.begin("new")
        await anyio.wait_all_tasks_blocked()
        assert requests.sent == []


def chain(count: int, **changed: Any) -> dict[str | None, Any]:
    """Make a listing with one session on each page; `changed` has fields of sessions to replace."""
    keys = [None, *(f"k{number}" for number in range(1, count)), None]
    ids = [f"SES{place}" for place in range(count)]
    return {keys[place]: page(wire(id, **changed.get(id, {})), key=keys[place + 1]) for place, id in enumerate(ids)}


async def second_pass(harness: Harness, listing: Listing, **settings: Any) -> list[str | None]:
    """Return the page keys that a second pass requests."""
    listing.asked.clear()
    harness.clock.forward(300)
    assert (await harness.one_pass(**settings)).state == "complete"
    return listing.asked


@pytest.mark.both_databases
async def test_pass_that_reads_ahead_has_the_counts_of_a_sequential_pass(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, chain(12))
        await harness.one_pass(read_ahead=4)
        asked = await second_pass(harness, listing, read_ahead=4)
        assert sorted(asked, key=str) == sorted(chain(12), key=str)  # no page twice
        assert (await counted(harness))["unchanged"] == 12
        listing.pages = chain(12, SES7={"name": "renamed"})
        await second_pass(harness, listing, read_ahead=4)
        row = await counted(harness)
        assert (row["seen"], row["updated"], row["unchanged"]) == (12, 1, 11)
        assert (await harness.live())["SES7"] == "renamed"


@pytest.mark.both_databases
async def test_pass_whose_early_pages_are_refused_completes_sequentially(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, chain(8))
        await harness.one_pass()
        given = iter([400])
        listing.pages = chain(8) | {"k3": lambda: next(given, chain(8)["k3"])}
        asked = await second_pass(harness, listing, read_ahead=4)
        assert asked.count("k3") == 2
        assert (await counted(harness))["seen"] == 8


@pytest.mark.both_databases
async def test_pages_of_the_last_pass_that_are_no_longer_part_of_the_listing_are_not_mirrored(folder: Path) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, chain(8))
        await harness.one_pass()
        listing.pages = chain(8) | {"k2": page(wire("SES2"), wire("SES3b"), key="k5")}
        listing.gone = {"SES3", "SES4"}
        await second_pass(harness, listing, read_ahead=4)
        row = await counted(harness)
        assert (row["seen"], row["inserted"], row["deleted"]) == (7, 1, 2)
        assert not {"SES3", "SES4"} & set(await harness.live())


def with_key_in_the_middle(listing: dict[str | None, Any]) -> dict[str | None, bytes]:
    """Write pages whose key is not at their end."""
    return {key: json.dumps(dict(reversed(page.items()))).encode() for key, page in listing.items()}


@pytest.mark.parametrize("write", [lambda listing: listing, with_key_in_the_middle])
async def test_listing_is_read_wherever_its_keys_are(folder: Path, write: Callable[[Any], Any]) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, write(chain(5)))
        assert (await harness.one_pass()).state == "complete"
        assert listing.asked == [*chain(5)]
        assert (await counted(harness))["inserted"] == 5


async def test_next_page_is_requested_before_a_page_is_read(folder: Path) -> None:
    async with open_harness(folder) as harness:
        unreadable = iter([b'{"Items": 5, "lastKey": "k1"}'])
        pages = chain(3)
        listing = Listing(harness, pages | {None: lambda: next(unreadable, pages[None])})
        assert (await harness.one_pass()).state == "complete"
        assert sorted(listing.asked, key=str) == sorted([*pages, None, "k1"], key=str)


@pytest.mark.parametrize("ceiling", [1, 2])
async def test_no_page_beyond_the_ceiling_is_requested(folder: Path, ceiling: int) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, chain(5))
        assert (await harness.one_pass(max_pages=ceiling)).state == "partial"
        assert listing.asked == [*chain(5)][:ceiling]


async def test_page_whose_request_failed_is_requested_again_after_a_wait(folder: Path) -> None:
    async with open_harness(folder) as harness:
        answers = iter([web.json_response({}, status=429, headers={"Retry-After": "100"}), 503])
        listing = Listing(harness, chain(4) | {"k1": lambda: next(answers, chain(4)["k1"])})
        began = harness.clock.now()
        assert (await harness.one_pass()).state == "complete"
        assert listing.asked == [None, "k1", "k1", "k1", "k2", "k3"]
        assert (harness.clock.now() - began).total_seconds() > 100
