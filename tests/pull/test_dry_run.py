"""`syncd once --dry-run`: its prediction equals the counts of the next pass, and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from syncd.albert.errors import AlbertTenantError
from syncd.pull.dry_run import DryRun, PassPrediction, UnreadableListingError
from syncd.pull.retries import ListingError, RequestRetries
from syncd.records.enums import PassReason
from syncd.rules.retry import Backoff
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness

pytestmark = pytest.mark.both_databases
LISTING = "/api/v3/chats/sessions"


async def content(harness: Harness) -> list[object]:
    return [
        await harness.sql(f"SELECT * FROM {table} ORDER BY 1") for table in ("sessions", "session_versions", "passes")
    ]


def retries_of(harness: Harness) -> RequestRetries:
    return RequestRetries(
        clock=harness.clock,
        backoff=Backoff(0.5, 300),
        jitter=lambda: 1.0,
        ceiling=lambda _: None,
        on_retry=lambda *_: None,
    )


async def prediction(harness: Harness, *, max_pages: int = 100) -> PassPrediction:
    run = DryRun(
        albert=harness.albert, mirror=harness.database, clock=harness.clock, retries=retries_of(harness),
        max_pages=max_pages, guard=harness.guard, machine=harness.machine,
    )  # fmt: skip
    return await run.predict()


async def counts_of_a_pass(harness: Harness) -> dict[str, object]:
    """Run a pass, and return what the prediction of it should have been, as far as its row says."""
    outcome = await harness.one_pass()
    columns = "pages, inserted, updated, unchanged, restored, quarantined, without_id, missing, deleted"
    (row,) = await harness.sql(f"SELECT {columns} FROM passes WHERE id = {outcome.pass_id}")
    return {**row, "held": outcome.error}


async def test_prediction_equals_the_counts_of_the_next_pass(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=25, habits=Habits(page_size=10)) as harness:
        await harness.one_pass()
        harness.sandbox.update("SES3", name="renamed")
        harness.sandbox.create(source_session_id="new-1", name="new")
        harness.sandbox.delete("SES7")
        before = await content(harness)
        harness.sandbox.requests.clear()
        predicted = (await prediction(harness)).as_dict()
        assert {request.method for request in harness.sandbox.requests} == {"GET"}
        assert await content(harness) == before
        assert predicted == {
            "pages": 3, "inserted": 1, "updated": 1, "unchanged": 23, "restored": 0, "quarantined": 0, "without_id": 0,
            "not_listed": 1, "missing": 1, "deleted": 1, "live_sessions": 25, "held": None,
        }  # fmt: skip
        counts = await counts_of_a_pass(harness)
        assert {name: predicted[name] for name in counts} == counts


async def test_deletion_is_predicted_in_the_pass_that_does_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=25, habits=Habits(page_size=10)) as harness:
        harness.guard = replace(harness.guard, grace=60, confirmations=2)
        await harness.one_pass()
        harness.sandbox.delete("SES7")
        harness.sandbox.delete("SES8")
        harness.sandbox.habits.unlisted = ["SES9"]
        deleted = []
        for _ in range(4):
            before = await content(harness)
            predicted = (await prediction(harness)).as_dict()
            assert await content(harness) == before
            counts = await counts_of_a_pass(harness)
            assert {name: predicted[name] for name in counts} == counts
            deleted.append(predicted["deleted"])
            harness.clock.forward(harness.guard.grace)
        assert deleted == [0, 2, 0, 0]


async def test_sessions_that_are_not_listed_and_exist_are_predicted_to_stay(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=100) as harness:
        await harness.one_pass()
        harness.sandbox.habits.unlisted = [f"SES{number}" for number in range(1, 61)]
        predicted = (await prediction(harness)).as_dict()
        counts = await counts_of_a_pass(harness)
        assert {name: predicted[name] for name in counts} == counts
        assert (predicted["not_listed"], predicted["missing"], predicted["held"]) == (60, 0, None)


async def test_pass_that_the_guard_would_hold_is_predicted_with_its_reason_and_stops_asking(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=100) as harness:
        await harness.one_pass()
        for number in range(1, 61):
            harness.sandbox.delete(f"SES{number}")
        harness.sandbox.requests.clear()
        predicted = await prediction(harness)
        by_id = [request for request in harness.sandbox.requests if "/SES" in request.raw_path]
        outcome = await harness.one_pass()
        assert (predicted.held, predicted.missing, predicted.deleted) == (outcome.error, 60, 0)
        assert predicted.held is not None
        assert len(by_id) < 60


async def test_listed_item_that_cannot_be_read_is_not_predicted_as_missing(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=12, habits=Habits(page_size=10)) as harness:
        await harness.one_pass()
        harness.sandbox.update("SES3", name=7)
        predicted = (await prediction(harness)).as_dict()
        counts = await counts_of_a_pass(harness)
        assert {name: predicted[name] for name in counts} == counts
        assert (predicted["quarantined"], predicted["not_listed"]) == (1, 0)


async def test_listing_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=25, habits=Habits(page_size=10)) as harness:
        with pytest.raises(UnreadableListingError, match="more than 2 pages; see SYNCD_MAX_PASS_PAGES"):
            await prediction(harness, max_pages=2)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_request_that_fails_once_is_repeated(tmp_path: Path, status: int) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        harness.sandbox.script("GET", LISTING, status)
        assert (await prediction(harness)).changes == {"inserted": 5}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
async def test_listing_that_cannot_be_read_is_an_error_with_the_next_command(tmp_path: Path, status: int) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        harness.sandbox.script("GET", LISTING, status, times=100)
        with pytest.raises(UnreadableListingError, match=rf"{status}.*syncd doctor"):
            await prediction(harness)


async def test_pass_that_would_be_held_is_predicted_with_its_reason(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        for number in range(1, 6):
            harness.sandbox.delete(f"SES{number}")
        predicted = await prediction(harness)
        outcome = await harness.one_pass()
        assert (predicted.pages, predicted.held) == (0, outcome.error)
        assert predicted.held is not None


async def test_empty_listing_of_sessions_that_albert_knows_is_predicted_as_held(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        harness.sandbox.habits.unlisted = [f"SES{number}" for number in range(1, 6)]
        predicted = await prediction(harness)
        outcome = await harness.one_pass()
        assert (predicted.pages, predicted.held) == (1, outcome.error)
        assert predicted.held is not None


async def test_token_of_another_tenant_is_the_reason_and_not_the_credentials(tmp_path: Path) -> None:
    async def refused() -> None:
        raise AlbertTenantError("the database mirrors TEN1")

    async with open_harness(tmp_path) as harness:
        with pytest.raises(ListingError) as caught:
            await retries_of(harness).run(refused, "a page")
    assert caught.value.reason.code is PassReason.OTHER_TENANT
