"""`syncd once --dry-run`: its prediction equals the counts of the next pass, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.pull.dry_run import EndlessListingError, predict
from syncd.sandbox import Habits
from tests.helpers.harness import World, world

pytestmark = pytest.mark.both_databases


async def content(w: World) -> list[object]:
    return [await w.sql(f"SELECT * FROM {table} ORDER BY 1") for table in ("sessions", "session_versions", "passes")]


async def test_prediction_equals_the_counts_of_the_next_pass(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=25, habits=Habits(page_size=10)) as w:
        await w.one_pass()
        w.sandbox.update("SES3", name="renamed")
        w.sandbox.create(source_session_id="new-1", name="new")
        w.sandbox.delete("SES7")
        before = await content(w)
        w.sandbox.requests.clear()
        found = (await predict(w.albert, w.database.read, max_pages=100)).as_dict()
        assert {request.method for request in w.sandbox.requests} == {"GET"}
        assert await content(w) == before
        assert found == {
            "pages": 3, "inserted": 1, "updated": 1, "unchanged": 23, "restored": 0, "quarantined": 0, "not_listed": 1,
        }  # fmt: skip
        outcome = await w.one_pass()
        (row,) = await w.sql(f"SELECT inserted, updated, unchanged, missing FROM passes WHERE id = {outcome.pass_id}")
        assert row == {"inserted": 1, "updated": 1, "unchanged": 23, "missing": 1}


async def test_listing_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=25, habits=Habits(page_size=10)) as w:
        with pytest.raises(EndlessListingError, match="SYNCD_MAX_PASS_PAGES"):
            await predict(w.albert, w.database.read, max_pages=2)
