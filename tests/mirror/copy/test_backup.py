"""`syncd backup`: one snapshot, whole, and in its place in one step, while others write."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from syncd.cli import cli
from syncd.errors import DatabaseUnusableError, SyncdError, UsageError
from syncd.mirror.copy import backup
from syncd.mirror.copy.backup import copy
from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import migrate


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Make a mirror with rows."""
    path = tmp_path / "syncd.db"

    async def make() -> None:
        async with Database.create(sa.make_url(f"sqlite+aiosqlite:///{path}"), busy_timeout=5) as database:
            await database.write(migrate.migrate)
            await database.write(lambda c: _insert(c, 200))

    anyio.run(make)
    return path


def _insert(connection: sa.Connection, count: int) -> None:
    connection.exec_driver_sql(
        "INSERT INTO source_sessions (source_session_id) VALUES (?)", [(f"s-{n}",) for n in range(count)]
    )


@pytest.fixture
def writer(mirror: Path) -> Iterator[threading.Event]:
    """Write pairs of rows to the mirror, each pair in one transaction, until the test is over."""
    stop, started = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(mirror, isolation_level=None, timeout=10)) as connection:
            number = 0
            while not stop.is_set():
                connection.execute("BEGIN IMMEDIATE")
                for half in ("a", "b"):
                    connection.execute(
                        "INSERT INTO source_sessions (source_session_id) VALUES (?)", (f"{half}-{number}",)
                    )
                connection.execute("COMMIT")
                number += 1
                started.set()

    thread = threading.Thread(target=write)
    thread.start()
    started.wait(10)
    yield started
    stop.set()
    thread.join()


def rows(path: Path, where: str = "true") -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM source_sessions WHERE {where}").fetchone()[0])


def test_copy_is_one_snapshot_while_another_program_writes(
    mirror: Path, tmp_path: Path, writer: threading.Event
) -> None:
    target = tmp_path / "copy.db"
    seen = 0
    for _ in range(5):
        copied = copy(mirror, target)
        assert rows(target) == copied.rows["source_sessions"] > seen
        assert rows(target, "source_session_id LIKE 'a-%'") == rows(target, "source_session_id LIKE 'b-%'")
        seen = copied.rows["source_sessions"]
    assert writer.is_set()


def test_copy_is_for_its_owner_alone_and_is_one_file(mirror: Path, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "copy.db"
    target.parent.mkdir()
    old = os.umask(0)
    try:
        copied = copy(mirror, target)
    finally:
        os.umask(old)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [one.name for one in target.parent.iterdir()] == ["copy.db"]
    assert copied.size == target.stat().st_size
    with closing(sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_reader_of_the_old_copy_keeps_it_while_a_new_one_takes_its_place(mirror: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    copy(mirror, target)
    with closing(sqlite3.connect(target)) as reader:
        assert reader.execute("SELECT count(*) FROM source_sessions").fetchone() == (200,)
        with closing(sqlite3.connect(mirror)) as connection, connection:
            connection.execute("INSERT INTO source_sessions (source_session_id) VALUES ('one-more')")
        copy(mirror, target)
        assert reader.execute("SELECT count(*) FROM source_sessions").fetchone() == (200,)
    assert rows(target) == 201


@pytest.mark.parametrize("name", ["syncd.db", "syncd.db-wal", "syncd.db-shm", "syncd.db.lock", "sub/../syncd.db"])
def test_mirror_itself_is_never_overwritten(mirror: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError, match="is the mirror itself"):
        copy(mirror, tmp_path / name)
    assert rows(mirror) == 200


@pytest.mark.parametrize(
    ("link", "refusal", "reason"),
    [("symlink_to", UsageError, "is the mirror itself"), ("hardlink_to", DatabaseUnusableError, "2 hard links")],
)
def test_link_to_the_mirror_is_not_overwritten(
    mirror: Path, tmp_path: Path, link: str, refusal: type[SyncdError], reason: str
) -> None:
    other = tmp_path / "other.db"
    getattr(other, link)(mirror)
    with pytest.raises(refusal, match=reason):
        copy(mirror, other)
    assert rows(mirror) == 200


def test_copy_that_fails_leaves_the_old_one_and_nothing_half_made(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy.db"
    copy(mirror, target)
    before = target.read_bytes()
    good = backup._copy_snapshot
    monkeypatch.setattr(backup, "_copy_snapshot", lambda *paths: {**good(*paths), "source_sessions": 7})
    with pytest.raises(DatabaseUnusableError, match="does not hold what was read"):
        copy(mirror, target)
    assert target.read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} <= {"copy.db", "syncd.db", "syncd.db-wal", "syncd.db-shm"}


def test_damaged_mirror_makes_no_backup(mirror: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(mirror, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    content = bytearray(mirror.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    mirror.write_bytes(content)
    with pytest.raises(DatabaseUnusableError, match="no backup was made"):
        copy(mirror, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_folder_that_is_not_there_is_said(mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(SyncdError, match=r"nowhere.*No such file or directory"):
        copy(mirror, tmp_path / "nowhere" / "copy.db")


def test_postgresql_is_left_to_its_own_tool(tmp_path: Path) -> None:
    environment = {"SYNCD_DATABASE_URL": "postgresql+asyncpg://somebody@localhost/none"}
    done = CliRunner().invoke(cli, ["backup", str(tmp_path / "x.db")], env=environment)
    assert isinstance(done.exception, UsageError)
    assert "pg_dump" in str(done.exception)


def test_two_backups_to_one_file_at_once_are_both_whole(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copies" / "copy.db"
    target.parent.mkdir()
    real = backup._sync
    during: list[Path] = []

    def sync(path: Path) -> None:
        if not during:  # the first one's copy is verified; another begins, and fails, before it is in its place
            during.append(path)
            with monkeypatch.context() as patch:
                patch.setattr(backup, "_copy_snapshot", lambda *_: {})
                with pytest.raises(DatabaseUnusableError):
                    copy(mirror, target)
        real(path)

    monkeypatch.setattr(backup, "_sync", sync)
    copy(mirror, target)
    assert rows(target) == 200
    assert [one.name for one in target.parent.iterdir()] == ["copy.db"]


def test_what_a_killed_backup_left_is_removed_by_the_next(mirror: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    die = (
        "import os, pathlib, signal, sys\nfrom syncd.mirror.copy import backup\n"
        "backup._verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "backup.copy(*map(pathlib.Path, sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", die, mirror, folder / "monday.db"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert sum(one.stat().st_size for one in folder.iterdir()) > 0
    copy(mirror, folder / "tuesday.db")
    assert [one.name for one in folder.iterdir()] == ["tuesday.db"]


def test_what_is_no_database_is_not_replaced(mirror: Path, tmp_path: Path) -> None:
    notes, pipe = tmp_path / "notes.txt", tmp_path / "pipe"
    notes.write_text("mine")
    os.mkfifo(pipe)
    for target in (notes, pipe, tmp_path, Path()):
        with pytest.raises(UsageError):
            copy(mirror, target)
    assert notes.read_text() == "mine"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(SyncdError, match="name too long"):
        copy(mirror, tmp_path / ("x" * 300))


def test_a_link_is_followed(mirror: Path, tmp_path: Path) -> None:
    link, real = tmp_path / "latest.db", tmp_path / "monday.db"
    link.symlink_to(real)
    for _ in range(2):
        copy(mirror, link)
        assert link.is_symlink()
        assert rows(real) == 200
