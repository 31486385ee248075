"""The file of a SQLite database: its mode, and files that are replaced, foreign or corrupt."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.errors import DatabaseReplacedError, DatabaseUnusableError
from syncd.mirror.db.database import Database
from tests.helpers import empty_mirror
from tests.mirror.db.helpers import opened, run

pytestmark = pytest.mark.usefixtures("short_tries")


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def test_new_files_are_accessible_only_to_their_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path) as database:
            await database.write(run("CREATE TABLE t (x)"))
            await database.read(run("SELECT * FROM t"))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path)}
    finally:
        os.umask(before)
    assert modes == {"syncd.db": 0o600, "syncd.db-wal": 0o600, "syncd.db-shm": 0o600}


async def test_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "syncd.db"
    path.touch()
    path.chmod(0o640)
    async with opened(tmp_path) as database:
        await database.write(run("CREATE TABLE t (x)"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_file_that_cannot_be_created_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusableError, match="no-such-folder"):
        Database.create(sa.make_url(f"sqlite+aiosqlite:///{tmp_path / 'no-such-folder' / 'x.db'}"))


async def _call(database: Database, call: str) -> None:
    if call == "read":
        await database.read(run("SELECT 1"))
    elif call == "write":
        await database.write(run("INSERT INTO source_sessions (source_session_id) VALUES ('t')"))
    else:
        getattr(database, call)()


@pytest.mark.parametrize("how", ["removed", "replaced"])
@pytest.mark.parametrize("call", ["read", "write", "data_version", "check_identity"])
async def test_removed_or_replaced_file_is_reported_and_not_created_again(folder: Path, how: str, call: str) -> None:
    path = folder / "syncd.db"
    async with opened(folder) as database:
        await database.write(run("INSERT INTO source_sessions (source_session_id) VALUES ('s')"))
        path.rename(folder / "moved.db")
        if how == "replaced":
            empty_mirror.create(path)
        with pytest.raises(DatabaseReplacedError, match="replaced or removed"):
            await _call(database, call)
        assert path.exists() == (how == "replaced")


async def test_file_replaced_during_a_transaction_fails_the_write(folder: Path) -> None:
    path = folder / "syncd.db"
    async with opened(folder) as database:

        def work(_: sa.Connection) -> None:
            path.rename(folder / "moved.db")
            empty_mirror.create(path)

        with pytest.raises(DatabaseReplacedError):
            await database.write(work)


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to look like one" * 100, b"SQLite format 3\0"]
)
async def test_file_that_is_not_a_database_is_refused_and_not_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "syncd.db"
    path.write_bytes(content)
    async with opened(tmp_path, busy_timeout=0.1) as database:
        with pytest.raises(DatabaseUnusableError, match="cannot be used"):
            await database.write(run("CREATE TABLE t (x)"))
        with pytest.raises(DatabaseUnusableError, match="cannot be used"):
            await database.read(run("SELECT * FROM sqlite_master"))
    assert path.read_bytes() == content


async def test_write_to_a_read_only_database_names_its_file_system_and_no_backup(folder: Path) -> None:
    async with opened(folder) as database:
        with pytest.raises(DatabaseUnusableError, match="mount -o remount,rw") as caught:
            await database.read(run("CREATE TABLE t (x)"))  # readers are read-only connections
    assert "attempt to write a readonly database" in str(caught.value)
    assert "backup" not in str(caught.value)


async def test_corrupt_database_is_refused_and_not_repaired(folder: Path) -> None:
    path = folder / "syncd.db"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    async with opened(folder, busy_timeout=0.1) as database:
        with pytest.raises(DatabaseUnusableError, match="malformed"):
            await database.write(run("INSERT INTO source_sessions (source_session_id) VALUES ('s')"))


async def test_closing_removes_the_wal(folder: Path) -> None:
    async with opened(folder) as database:
        await database.write(run("INSERT INTO source_sessions (source_session_id) VALUES ('s')"))
        await database.read(run("SELECT 1"))
        database.data_version()
    assert [path.name for path in files(folder)] == ["syncd.db"]
