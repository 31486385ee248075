"""A running pass lists one tenant: it ends if the database gets another tenant, and continues otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.mirror.schema import tables
from syncd.mirror.store import identity, passes
from syncd.rules.identity import Identity
from syncd.tenant_change import accept_tenant
from tests.helpers.harness import World, world

pytestmark = pytest.mark.both_databases

A = Identity("https://a.example", "TEN1")


async def interrupted(w: World) -> None:
    """Leave a pass that was interrupted after its first page."""
    await w.database.write(lambda c: identity.pin(c, A, w.clock.now()))
    await w.sql("INSERT INTO passes (started_at, page_key, pages) VALUES ('2026-06-01T11:59:00.000000Z', 'SES10', 1)")
    await w.database.write(_insert_page)


def _insert_page(connection: sa.Connection) -> None:
    row = {"pass_id": 1, "number": 1, "next_key": "SES10", "session_keys": b"", "quarantine_ids": b"", "versions": 0}
    connection.execute(sa.insert(tables.pages).values(row))


async def test_running_pass_ends_with_the_tenant(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=25) as w:
        await interrupted(w)
        await accept_tenant(w.database, None, Identity("https://b.example", "TEN2"), by="alice", now=w.clock.now())
        ended = await w.last_pass()
        assert (ended["state"], ended["error"]) == ("failed", "the tenant of the database was changed")
        assert ended["finished_at"] is not None
        assert await w.sql("SELECT * FROM pages") == []
        assert await w.database.write(passes.running) is None
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def test_running_pass_continues_at_a_new_address_of_the_tenant(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=25) as w:
        await interrupted(w)
        await accept_tenant(w.database, None, Identity("https://b.example", "ten1"), by="alice", now=w.clock.now())
        assert (await w.last_pass())["state"] == "running"
        progress = await w.database.write(passes.running)
        assert progress is not None
        assert progress.page_key == "SES10"
