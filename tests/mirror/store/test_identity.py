"""The row of `mirror_identity`: pinned once, changed only by an operator, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.mirror.store import identity
from syncd.mirror.store.identity import StoredIdentity
from syncd.rules.identity import Identity
from tests.helpers.harness import Harness, open_harness

pytestmark = pytest.mark.both_databases

A, B = Identity("https://a.example", "TEN1"), Identity("https://b.example", "TEN2")


async def pin(harness: Harness, named: Identity) -> Identity:
    return (await harness.database.write(lambda c: identity.pin(c, named, harness.clock.now()))).pinned


async def test_unused_database_has_no_identity(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        assert await harness.database.read(identity.read) == StoredIdentity()
        assert await harness.database.read(identity.read_any_revision) == StoredIdentity()


async def test_first_pin_is_kept(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        assert await pin(harness, A) == A
        pinned_at = (await harness.database.read(identity.read)).pinned_at
        harness.clock.forward(60)
        assert await pin(harness, B) == A
        assert await pin(harness, Identity(A.origin)) == A
        assert await harness.database.read(identity.read) == StoredIdentity(A, pinned_at)


async def test_tenant_that_becomes_known_later_is_added(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        assert await pin(harness, Identity(A.origin)) == Identity(A.origin)
        assert await pin(harness, Identity(B.origin, "TEN2")) == Identity(A.origin)
        assert await pin(harness, A) == A


async def test_accept_replaces_every_part(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await pin(harness, A)
        before = await harness.database.write(lambda c: identity.accept(c, Identity(B.origin), harness.clock.now()))
        assert before.pinned == A
        assert (await harness.database.read(identity.read)).pinned == Identity(B.origin)


async def test_marks_of_a_move_and_of_a_copy_leave_the_tenant(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.database.write(lambda c: identity.mark_moved(c, "sqlite:///b.db", harness.clock.now()))
        await pin(harness, A)
        await harness.sql("UPDATE mirror_identity SET copied_at = '2026-06-01T13:00:00.000000Z'")
        stored = await harness.database.read(identity.read)
        assert (stored.pinned, stored.moved_to, stored.moved_at) == (A, "sqlite:///b.db", harness.clock.now())
        assert await harness.database.write(identity.forget_copy) == stored.copied_at
        assert await harness.database.write(identity.forget_copy) is None
        assert await harness.database.write(identity.unmark_moved) == "sqlite:///b.db"
        assert await harness.database.write(identity.unmark_moved) is None
        assert await harness.database.read(identity.read) == StoredIdentity(A, stored.pinned_at)


async def test_database_of_revision_0001_has_no_identity(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql("DROP TABLE mirror_identity")
        assert await harness.database.read(identity.read_any_revision) == StoredIdentity()


async def test_there_is_one_row(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await pin(harness, A)
        with pytest.raises(sa.exc.IntegrityError):
            await harness.sql("INSERT INTO mirror_identity (id) VALUES (2)")
