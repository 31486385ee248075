"""Pages that arrive faster than they are written share a transaction, with the same result as one page each."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio
import pytest

from syncd.pull.fetch import MOST_BYTES, MOST_PAGES, PageQueue
from syncd.pull.retries import ListingError
from syncd.pull.write_pages import Fetched
from syncd.records.enums import PassReason
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import Listing, counted, dump, page, wire

pytestmark = pytest.mark.both_databases

LISTINGS = 3
COUNTED = ("pages", "seen", "inserted", "updated", "unchanged", "restored", "missing", "quarantined", "state")


def scripted(rng: random.Random) -> dict[str | None, Any]:
    """Make a listing with repeated, changing and unreadable sessions, and items without an id."""
    pages: dict[str | None, Any] = {}
    count = rng.randint(2, 9)
    for number in range(count):
        items: list[Any] = [
            wire(f"SES{rng.randint(1, 30)}", rng.randint(0, 2), name=f"name {rng.randint(0, 1)}")
            for _ in range(rng.randint(0, 6))
        ]
        if rng.random() < 0.4:
            items.append({"id": f"SES{rng.randint(1, 30)}", "name": 7})
        if rng.random() < 0.1:
            items.append({"name": "no-session"})
        key = None if number == 0 else str(number)
        pages[key] = page(*items, key=str(number + 1) if number + 1 < count else None)
    return pages


async def outcome(folder: Path, seed: int) -> list[Any]:
    """Mirror several listings, each twice, and return the counters and rows after each pass."""
    folder.mkdir()
    rng = random.Random(seed)  # noqa: S311 - no secret
    async with open_harness(folder) as harness:
        left = []
        for pages in [scripted(rng) for _ in range(LISTINGS)]:
            listing = Listing(harness, pages)
            for _ in range(2):
                await harness.one_pass()
                left.append({name: (await counted(harness))[name] for name in COUNTED})
                left.append(await without_times(harness))
            del listing
            harness.sandbox.scripts = type(harness.sandbox.scripts)()
        return left


async def without_times(harness: Harness) -> dict[str, Any]:
    return {
        table: [{name: value for name, value in row.items() if name != "fence"} for row in rows]
        for table, rows in (await dump(harness)).items()
    }


@pytest.mark.sqlite
@pytest.mark.parametrize("seed", range(12))
async def test_pages_written_together_have_the_result_of_pages_written_alone(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = await outcome(tmp_path / "together", seed)
    monkeypatch.setattr("syncd.pull.fetch.MOST_PAGES", 1)
    assert together == await outcome(tmp_path / "alone", seed)


@pytest.mark.slow
@pytest.mark.sqlite
async def test_pages_that_arrive_together_share_a_transaction_and_a_single_page_does_not_wait(
    folder: Path,
) -> None:
    async with open_harness(folder, sessions=45) as harness:
        seen: list[int] = []
        pull = harness.pull()
        pull.on_page = lambda counts: seen.append(counts["pages"])
        await pull.run()
        assert len(seen) < 5
        assert seen[-1] == 5
        held, counts = anyio.Event(), list[int]()

        async def hold(_: object) -> None:
            await held.wait()

        def on_page(now: Any) -> None:
            counts.append(now["pages"])
            held.set()  # the first two pages are written while the third request hangs

        pull.on_page = on_page
        harness.sandbox.script("GET", "/api/v3/chats/sessions?", lambda _: None)
        harness.sandbox.script("GET", "/api/v3/chats/sessions?", hold)
        with anyio.fail_after(20):
            await pull.run()
        assert counts[0] == 2
        assert counts[-1] == 5


def fetched(size: int = 1, *, last: bool = False) -> Fetched:
    return Fetched(asked_at=None, mark=b"", size=size, next_key="key", last=last)  # type: ignore[arg-type]


@pytest.mark.sqlite
@pytest.mark.parametrize(("size", "most"), [(1, MOST_PAGES), (MOST_BYTES // 3, 4), (MOST_BYTES * 10, 1)])
async def test_page_queue_holds_a_bounded_number_of_pages_and_bytes(size: int, most: int) -> None:
    page_queue = PageQueue()
    put = 0

    async def fill() -> None:
        nonlocal put
        for _ in range(most + 3):
            await page_queue.put(fetched(size))
            put += 1

    async with anyio.create_task_group() as group:
        group.start_soon(fill)
        await anyio.wait_all_tasks_blocked()
        assert put == most
        assert len(await page_queue.take()) == most
        group.cancel_scope.cancel()


@pytest.mark.sqlite
async def test_page_queue_returns_the_pages_before_an_error_first() -> None:
    page_queue = PageQueue()
    await page_queue.put(fetched())
    page_queue.end(ListingError(PassReason.ALBERT_FAILING, "why"))
    assert len(await page_queue.take()) == 1
    with pytest.raises(ListingError, match="why"):
        await page_queue.take()


@pytest.mark.sqlite
async def test_ended_page_queue_returns_no_more_pages() -> None:
    page_queue = PageQueue()
    await page_queue.put(fetched(last=True))
    page_queue.end()
    assert len(await page_queue.take()) == 1
    assert await page_queue.take() == []
