"""A running pass lists one tenant: it ends if the database gets another tenant, and continues otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.mirror.store import identity
from syncd.rules.identity import Identity
from syncd.tenant_change import accept_tenant
from tests.helpers.harness import World, world
from tests.pull.helpers import listings, run_until

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("_a_page_at_a_time")]

A = Identity("https://a.example", "TEN1")


@pytest.fixture
def _a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncd.pull.fetch.MOST_PAGES", 1)


async def interrupt_a_pass(w: World) -> None:
    """Leave a pass that was interrupted after its first page."""
    await w.database.write(lambda c: identity.pin(c, A, w.clock.now()))
    await run_until(w, pages=1)
    assert (await w.last_pass())["state"] == "running"
    assert len(await w.sql("SELECT number FROM pages")) == 1


async def test_running_pass_ends_with_the_tenant(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=25) as w:
        await interrupt_a_pass(w)
        await accept_tenant(w.database, None, Identity("https://b.example", "TEN2"), by="alice")
        ended = await w.last_pass()
        assert (ended["state"], ended["error"]) == ("failed", "the tenant of the database was changed")
        assert ended["finished_at"] is not None
        assert await w.sql("SELECT * FROM pages") == []
        assert (await w.one_pass()).state == "complete"
        assert (await w.last_pass())["id"] == 2
        assert await w.live() == w.there()


async def test_running_pass_continues_at_a_new_address_of_the_tenant(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=25) as w:
        await interrupt_a_pass(w)
        key = (await w.last_pass())["page_key"]
        await accept_tenant(w.database, None, Identity("https://b.example", "ten1"), by="alice")
        assert (await w.last_pass())["state"] == "running"
        w.sandbox.requests.clear()
        assert (await w.one_pass()).state == "complete"
        assert (await w.last_pass())["id"] == 1
        first, *_ = listings(w)
        assert f"startKey={key}" in first
