"""Revision 0010: `mirror_freshness` shows no negative age after the clock was set back, and none without a pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.clock import utc_text
from tests.helpers.harness import open_harness

pytestmark = pytest.mark.both_databases

AGES = "SELECT age_seconds AS age, listed_age_seconds AS listed FROM mirror_freshness"


@pytest.mark.parametrize(("ago", "least", "most"), [(-3600, 0.0, 0.0), (3600, 3600.0, 3700.0)])
async def test_age_is_the_time_since_the_pass_and_at_least_0(
    tmp_path: Path, ago: int, least: float, most: float
) -> None:
    async with open_harness(tmp_path, sessions=1) as harness:
        assert await harness.sql(AGES) == [{"age": None, "listed": None}]
        await harness.one_pass()
        at = utc_text(datetime.now(UTC) - timedelta(seconds=ago))
        await harness.sql(f"UPDATE passes SET finished_at = '{at}', listed_at = '{at}'")
        ((age, listed),) = [tuple(row.values()) for row in await harness.sql(AGES)]
        assert least <= age <= most
        assert least <= listed <= most
