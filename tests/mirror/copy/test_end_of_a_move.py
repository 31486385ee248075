"""The end of `syncd migrate-store`: at no moment do both databases act, and no number is given twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from syncd.errors import DatabaseUnusableError, SyncdError
from syncd.mirror.copy import migrate_store, move_target
from syncd.mirror.db.backends import backend_of
from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import migrate
from syncd.mirror.store import identity
from tests.cli.conftest import Call, syncd
from tests.helpers.harness import open_harness
from tests.helpers.postgres_server import PostgresServer, free_port
from tests.helpers.tcp_proxy import Proxy, proxied
from tests.mirror.copy.test_migrate_store import move

__all__ = ["syncd"]


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[Proxy]:
    async with proxied(postgres.port) as running:
        yield running


@pytest.fixture
async def source(tmp_path: Path) -> sa.URL:
    """Make a SQLite mirror with one operation, whose two predecessors were removed."""
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(*({"kind": "create", "source_session_id": f"s-{n}", "name": "n"} for n in range(3)))
        await harness.sql("DELETE FROM operations WHERE id <> 1")
        return harness.database.url


async def moved_to(url: sa.URL) -> str | None:
    async with Database(url, busy_timeout=5) as database:
        return (await database.read(identity.read)).moved_to


async def is_released(url: sa.URL) -> bool:
    async with Database(url, busy_timeout=5) as database:
        return not await database.read(migrate.is_half_moved)


def cut_last_commit(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = move_target.finish

    def then_cut(*args: Any, **options: Any) -> None:
        finish(*args, **options)
        proxy.cut_commits = 1

    monkeypatch.setattr(move_target, "finish", then_cut)


async def test_lost_answer_to_the_last_commit_leaves_the_source_marked(
    source: sa.URL, empty_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = sa.make_url(empty_url)
    cut_last_commit(proxy, monkeypatch)
    await move(source, there.set(port=proxy.port))
    assert proxy.cuts == 1
    assert await moved_to(source) is not None
    assert await is_released(there)


async def test_last_commit_that_did_not_arrive_leaves_a_move_that_can_be_repeated(
    source: sa.URL, empty_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = sa.make_url(empty_url)

    async def nothing() -> None:
        pass

    with monkeypatch.context() as patch:
        cut_last_commit(proxy, patch)
        proxy.instead = nothing
        with pytest.raises(DatabaseUnusableError):
            await move(source, there.set(port=proxy.port))
    assert await moved_to(source) is None
    assert not await is_released(there)
    await move(source, there)
    assert await is_released(there)


async def test_source_stays_marked_if_it_is_unknown_whether_the_target_is_released(
    source: sa.URL, empty_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = sa.make_url(empty_url)
    address = there.set(port=proxy.port)

    async def away() -> None:
        proxy.target = free_port()

    with monkeypatch.context() as patch:
        cut_last_commit(proxy, patch)
        proxy.instead = away
        with pytest.raises(SyncdError, match="may be done or not"):
            await move(source, address)
    assert await moved_to(source) is not None
    proxy.target = there.port or 0
    await move(source, address)
    assert await is_released(there)


async def test_row_that_is_written_before_the_mark_ends_the_move_and_is_moved_by_the_next_one(
    source: sa.URL, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = sa.make_url(empty_url)
    compare = migrate_store._Move._compare

    async def then_write(moving: Any, target: Any) -> Any:
        compared = await compare(moving, target)
        async with Database(source, busy_timeout=5) as database:
            await database.write(
                lambda c: c.exec_driver_sql("INSERT INTO operations (kind, session_id) VALUES ('delete', 'SES1')")
            )
        return compared

    with monkeypatch.context() as patch:
        patch.setattr(migrate_store._Move, "_compare", then_write)
        with pytest.raises(SyncdError, match="written to while it was moved"):
            await move(source, there)
    assert await moved_to(source) is None
    moved = {table.table: table.rows for table in await move(source, there)}
    assert moved["operations"] == 2


async def test_number_of_a_removed_row_is_not_given_again(tmp_path: Path, source: sa.URL, empty_url: str) -> None:
    there, back = sa.make_url(empty_url), source.set(database=str(tmp_path / "back.db"))
    async with Database.create(back):
        pass
    await move(source, there)
    await move(there, back)
    for url in (there, back):
        async with Database(url, busy_timeout=5) as database:
            row = await database.write(
                lambda c: c.exec_driver_sql(
                    "INSERT INTO operations (kind, session_id) VALUES ('delete', 'SES1') RETURNING id"
                ).scalar()
            )
            assert row == 4


async def test_move_that_is_complete_is_complete_again(source: sa.URL, empty_url: str) -> None:
    """A process that was killed just after its last step leaves the same state as one that was not."""
    there = sa.make_url(empty_url)
    assert await move(source, there) != []
    assert await move(source, there) == []
    assert await moved_to(source) == migrate_store.address(there)


@pytest.mark.parametrize("target", ["postgresql", "sqlite"])
async def test_source_without_a_write_ahead_log_is_moved(
    source: sa.URL, tmp_path: Path, empty_url: str, target: str
) -> None:
    """A restored mirror that was not started since, and a backup file, are in rollback mode."""
    with closing(sqlite3.connect(str(source.database), isolation_level=None)) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    there = sa.make_url(empty_url if target == "postgresql" else f"sqlite+aiosqlite:///{tmp_path / 'there.db'}")
    if target == "sqlite":
        backend_of(there).create()
    with anyio.fail_after(20):
        await move(source, there)
    assert await is_released(there)
    assert await moved_to(source) == migrate_store.address(there)


def test_place_that_a_database_was_moved_to_is_escaped_on_a_terminal(syncd: Call) -> None:
    syncd("migrate")
    with closing(sqlite3.connect("syncd.db", isolation_level=None)) as connection:
        connection.execute("INSERT INTO mirror_identity (id, moved_to) VALUES (1, 'sqlite:///' || char(27) || '[2J')")
    shown = syncd("migrate-store", "--unmark")
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert r"\x1b[2J" in shown.out
