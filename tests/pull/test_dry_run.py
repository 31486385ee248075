"""`syncd once --dry-run`: its prediction equals the counts of the next pass, and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from syncd.albert.errors import AlbertTenantError
from syncd.pull.dry_run import DryRun, Prediction, UnreadableListingError
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
    run = DryRun(
        albert=w.albert, mirror=w.database, clock=w.clock, retries=retries_of(w), max_pages=max_pages, guard=w.guard,
        machine=w.machine,
    )  # fmt: skip
    return await run.predict()


async def counts_of_a_pass(w: World) -> dict[str, object]:
    """Run a pass, and return what the prediction of it should have been, as far as its row says."""
    outcome = await w.one_pass()
    columns = "pages, inserted, updated, unchanged, restored, quarantined, without_id, missing, deleted"
    (row,) = await w.sql(f"SELECT {columns} FROM passes WHERE id = {outcome.pass_id}")
    return {**row, "held": outcome.error}


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
            "pages": 3, "inserted": 1, "updated": 1, "unchanged": 23, "restored": 0, "quarantined": 0, "without_id": 0,
            "not_listed": 1, "missing": 1, "deleted": 1, "live_sessions": 25, "held": None,
        }  # fmt: skip
        counts = await counts_of_a_pass(w)
        assert {name: found[name] for name in counts} == counts


async def test_deletion_is_predicted_in_the_pass_that_does_it(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=25, habits=Habits(page_size=10)) as w:
        w.guard = replace(w.guard, grace=60, confirmations=2)
        await w.one_pass()
        w.sandbox.delete("SES7")
        w.sandbox.delete("SES8")
        w.sandbox.habits.unlisted = ["SES9"]
        deleted = []
        for _ in range(4):
            before = await content(w)
            found = (await prediction(w)).as_dict()
            assert await content(w) == before
            counts = await counts_of_a_pass(w)
            assert {name: found[name] for name in counts} == counts
            deleted.append(found["deleted"])
            w.clock.forward(w.guard.grace)
        assert deleted == [0, 2, 0, 0]


async def test_sessions_that_are_not_listed_and_exist_are_predicted_to_stay(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=100) as w:
        await w.one_pass()
        w.sandbox.habits.unlisted = [f"SES{number}" for number in range(1, 61)]
        found = (await prediction(w)).as_dict()
        counts = await counts_of_a_pass(w)
        assert {name: found[name] for name in counts} == counts
        assert (found["not_listed"], found["missing"], found["held"]) == (60, 0, None)


async def test_pass_that_the_guard_would_hold_is_predicted_with_its_reason_and_stops_asking(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=100) as w:
        await w.one_pass()
        for number in range(1, 61):
            w.sandbox.delete(f"SES{number}")
        w.sandbox.requests.clear()
        found = await prediction(w)
        by_id = [one for one in w.sandbox.requests if "/SES" in one.raw_path]
        outcome = await w.one_pass()
        assert (found.held, found.missing, found.deleted) == (outcome.error, 60, 0)
        assert found.held is not None
        assert len(by_id) < 60


async def test_listed_item_that_cannot_be_read_is_not_predicted_as_missing(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=12, habits=Habits(page_size=10)) as w:
        await w.one_pass()
        w.sandbox.update("SES3", name=7)
        found = (await prediction(w)).as_dict()
        counts = await counts_of_a_pass(w)
        assert {name: found[name] for name in counts} == counts
        assert (found["quarantined"], found["not_listed"]) == (1, 0)


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
