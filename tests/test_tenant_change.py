"""A running pass lists one tenant: it ends if the database gets another tenant, and continues otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.mirror.store import identity
from syncd.rules.identity import Identity
from syncd.tenant_change import accept_tenant
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import listings, run_until

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("_a_page_at_a_time")]

A = Identity("https://a.example", "TEN1")


@pytest.fixture
def _a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncd.pull.fetch.MOST_PAGES", 1)


async def interrupt_a_pass(harness: Harness) -> None:
    """Leave a pass that was interrupted after its first page."""
    await harness.database.write(lambda c: identity.pin(c, A, harness.clock.now()))
    await run_until(harness, pages=1)
    assert (await harness.last_pass())["state"] == "running"
    assert len(await harness.sql("SELECT number FROM pages")) == 1


async def test_running_pass_ends_with_the_tenant(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=25) as harness:
        await interrupt_a_pass(harness)
        await accept_tenant(harness.database, None, Identity("https://b.example", "TEN2"), by="alice")
        ended = await harness.last_pass()
        assert (ended["state"], ended["error"]) == ("failed", "the tenant of the database was changed")
        assert ended["finished_at"] is not None
        assert await harness.sql("SELECT * FROM pages") == []
        assert (await harness.one_pass()).state == "complete"
        assert (await harness.last_pass())["id"] == 2
        assert await harness.live() == harness.there()


async def test_running_pass_continues_at_a_new_address_of_the_tenant(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=25) as harness:
        await interrupt_a_pass(harness)
        key = (await harness.last_pass())["page_key"]
        await accept_tenant(harness.database, None, Identity("https://b.example", "ten1"), by="alice")
        assert (await harness.last_pass())["state"] == "running"
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        assert (await harness.last_pass())["id"] == 1
        first, *_ = listings(harness)
        assert f"startKey={key}" in first
