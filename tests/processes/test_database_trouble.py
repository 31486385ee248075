"""A database that cannot be used: exit 3, the file untouched, and nothing more sent to Albert."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from syncd.mirror.db.sqlite_module import sqlite3
from tests.processes.helpers import SOON_BUSY, Syncd, eventually


def foreign(file: Path) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE theirs (a)")


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
        other.execute("INSERT INTO alembic_version VALUES ('9999')")
        other.commit()


def no_database(file: Path) -> None:
    file.write_bytes(b"these are a user's notes, not a database\n" * 100)


def damaged(file: Path) -> None:
    foreign(file)
    content = file.read_bytes()
    file.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


@pytest.mark.parametrize("spoil", [foreign, newer, no_database, damaged])
async def test_unusable_file_ends_run_and_status_with_exit_3_and_stays_as_it_was(syncd: Syncd, spoil: object) -> None:
    assert callable(spoil)
    spoil(syncd.file)
    before = syncd.file.read_bytes()
    for command in ("run", "status"):
        refused = await syncd.call(command)
        assert refused.code == 3, refused
        assert refused.err.startswith("error: ")
    assert syncd.file.read_bytes() == before
    assert not syncd.sandbox.requests


async def test_database_in_a_folder_or_being_one_is_refused_at_once(syncd: Syncd) -> None:
    (syncd.folder / "a-folder").mkdir()
    for path in ("a-folder", "not-there/syncd.db"):
        refused = await syncd.call("run", SYNCD_DATABASE_URL=f"sqlite+aiosqlite:///{path}")
        assert refused.code == 3
        assert path.split("/")[0] in refused.err


async def test_schema_is_not_migrated_when_auto_migrate_is_off(syncd: Syncd) -> None:
    for command in (["run"], ["once"], ["enqueue", "delete", "--id", "CHS1"]):
        refused = await syncd.call(*command, SYNCD_AUTO_MIGRATE="false")
        assert refused.code == 3
        assert "syncd migrate" in refused.err
    assert not syncd.file.exists()
    syncd.file.touch()
    assert (await syncd.call("once", SYNCD_AUTO_MIGRATE="false")).code == 3
    assert not syncd.sandbox.requests
    assert (await syncd.call("migrate")).code == 0
    assert (await syncd.call("once", SYNCD_AUTO_MIGRATE="false")).code == 0


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_replaced_or_removed_file_ends_the_daemon_before_another_change_is_sent(syncd: Syncd, how: str) -> None:
    assert (await syncd.call("once")).code == 0
    rows = b"source_session_id,name\n" + b"".join(b"s%d,N\n" % number for number in range(9))
    await syncd.call("enqueue", "import", "-", given=rows)
    syncd.sandbox.script("POST", "/api/v3/chats/sessions", "hang_before", times=3)
    daemon = await syncd.run(SYNCD_OPERATIONS_CONCURRENCY="3", SYNCD_REQUEST_TIMEOUT="30")
    await eventually(lambda: sum(request.method == "POST" for request in syncd.sandbox.requests) == 3)
    if how == "replaced":
        other = syncd.folder / "other.db"
        other.write_bytes(syncd.file.read_bytes())
        other.replace(syncd.file)
    else:
        syncd.file.unlink()
    assert await daemon.code() == 3
    assert "replaced or removed" in daemon.err.read_text()
    assert [request.method for request in syncd.sandbox.requests].count("POST") == 3
    assert not syncd.sandbox.effects


async def test_database_held_by_another_program_is_waited_for(syncd: Syncd) -> None:
    syncd.constants |= SOON_BUSY
    daemon = await syncd.run()
    await daemon.event("pass.complete")
    with closing(sqlite3.connect(syncd.file, timeout=20, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await daemon.event("database.waiting")
        other.execute("COMMIT")
    done = len(daemon.events("pass.complete"))
    await eventually(lambda: len(daemon.events("pass.complete")) > done)
    assert await daemon.stop() == 0
