"""`syncd once --dry-run`: its prediction equals the counts of the next pass, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.albert.errors import AlbertTenantError
from syncd.pull.dry_run import Prediction, UnreadableListingError, predict
from syncd.pull.retries import ListingError, Retries
from syncd.records.enums import PassReason
from syncd.rules.retry import Backoff
from syncd.sandbox import Habits
from tests.helpers.harness import World, world

pytestmark = pytest.mark.both_databases
LISTING = "/api/v3/chats/sessions"


async def content(w: World) -> list[object]:
    return [await w.sql(f"SELECT * FROM {table} ORDER BY 1") for table in ("sessions", "session_versions", "passes")]


def retries_of(w: World) -> Retries:
    return Retries(
        clock=w.clock, backoff=Backoff(0.5, 300), jitter=lambda: 1.0, ceiling=lambda _: None, on_retry=lambda *_: None
    )


async def prediction(w: World, *, max_pages: int = 100) -> Prediction:
    return await predict(w.albert, w.database.read, clock=w.clock, retries=retries_of(w), max_pages=max_pages)


async def test_prediction_equals_the_counts_of_the_next_pass(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=25, habits=Habits(page_size=10)) as w:
        await w.one_pass()
        w.sandbox.update("SES3", name="renamed")
        w.sandbox.create(source_session_id="new-1", name="new")
        w.sandbox.delete("SES7")
        before = await content(w)
        w.sandbox.requests.clear()
        found = (await prediction(w)).as_dict()
        assert {request.method for request in w.sandbox.requests} == {"GET"}
        assert await content(w) == before
        assert found == {
            "pages": 3, "inserted": 1, "updated": 1, "unchanged": 23, "restored": 0, "quarantined": 0, "not_listed": 1,
            "live_sessions": 25, "held": None,
        }  # fmt: skip
        outcome = await w.one_pass()
        (row,) = await w.sql(f"SELECT inserted, updated, unchanged, missing FROM passes WHERE id = {outcome.pass_id}")
        assert row == {"inserted": 1, "updated": 1, "unchanged": 23, "missing": 1}


async def test_listing_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=25, habits=Habits(page_size=10)) as w:
        with pytest.raises(UnreadableListingError, match="more than 2 pages; see SYNCD_MAX_PASS_PAGES"):
            await prediction(w, max_pages=2)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_request_that_fails_once_is_repeated(tmp_path: Path, status: int) -> None:
    async with world(tmp_path, sessions=5) as w:
        w.sandbox.script("GET", LISTING, status)
        assert (await prediction(w)).changes == {"inserted": 5}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
async def test_listing_that_cannot_be_read_is_an_error_with_the_next_command(tmp_path: Path, status: int) -> None:
    async with world(tmp_path, sessions=5) as w:
        w.sandbox.script("GET", LISTING, status, times=100)
        with pytest.raises(UnreadableListingError, match=rf"{status}.*syncd doctor"):
            await prediction(w)


async def test_pass_that_would_be_held_is_predicted_with_its_reason(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=5) as w:
        await w.one_pass()
        for number in range(1, 6):
            w.sandbox.delete(f"SES{number}")
        found = await prediction(w)
        outcome = await w.one_pass()
        assert (found.pages, found.held) == (0, outcome.error)
        assert found.held is not None


async def test_empty_listing_of_sessions_that_albert_knows_is_predicted_as_held(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=5) as w:
        await w.one_pass()
        w.sandbox.habits.unlisted = [f"SES{number}" for number in range(1, 6)]
        found = await prediction(w)
        outcome = await w.one_pass()
        assert (found.pages, found.held) == (1, outcome.error)
        assert found.held is not None


async def test_token_of_another_tenant_is_the_reason_and_not_the_credentials(tmp_path: Path) -> None:
    async def refused() -> None:
        raise AlbertTenantError("the database mirrors TEN1")

    async with world(tmp_path) as w:
        with pytest.raises(ListingError) as caught:
            await retries_of(w).run(refused, "a page")
    assert caught.value.reason.code is PassReason.OTHER_TENANT
