"""`syncd backup`: one verified snapshot, put in place by one rename while other programs write."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from syncd.cli import cli
from syncd.errors import DatabaseUnusableError, SyncdError, UsageError
from syncd.mirror.copy import backup, files
from syncd.mirror.copy.backup import Backup, back_up
from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import migrate

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def copy(database: Path, target: Path, mode: int | None = None) -> Backup:
    return back_up(database, target, now=NOW, mode=mode)


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
        writer.clear()
        assert writer.wait(20)  # something new is there to copy
        copied = copy(mirror, target)
        assert rows(target) == copied.rows["source_sessions"] > seen
        assert rows(target, "source_session_id LIKE 'a-%'") == rows(target, "source_session_id LIKE 'b-%'")
        seen = copied.rows["source_sessions"]


def test_copy_is_private_and_one_file_in_a_folder_that_is_made(mirror: Path, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "weekly" / "copy.db"
    old = os.umask(0)
    try:
        copied = copy(mirror, target)
    finally:
        os.umask(old)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [file.name for file in target.parent.iterdir()] == ["copy.db"]
    assert copied.size == target.stat().st_size
    with closing(sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_reader_of_the_old_copy_keeps_it_while_a_new_one_replaces_it(mirror: Path, tmp_path: Path) -> None:
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
def test_mirror_itself_is_not_overwritten(mirror: Path, tmp_path: Path, name: str) -> None:
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


def test_failed_copy_leaves_the_old_one_and_no_partial_file(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy.db"
    copy(mirror, target)
    before = target.read_bytes()
    good = backup._copy_snapshot
    monkeypatch.setattr(backup, "_copy_snapshot", lambda *paths: {**good(*paths), "source_sessions": 7})
    with pytest.raises(DatabaseUnusableError, match="does not contain the rows"):
        copy(mirror, target)
    assert target.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} <= {"copy.db", "syncd.db", "syncd.db-wal", "syncd.db-shm"}


def test_damaged_mirror_makes_no_backup(mirror: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(mirror, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    content = bytearray(mirror.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    mirror.write_bytes(content)
    with pytest.raises(DatabaseUnusableError, match="no backup was made"):
        copy(mirror, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_folder_that_cannot_be_created_is_named(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SyncdError, match=r"no backup was made: .*/file: File exists"):
        copy(mirror, tmp_path / "file" / "copy.db")


def test_readers_of_the_backup_can_enter_its_new_folder_whatever_the_umask_is(mirror: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        copy(mirror, tmp_path / "group" / "b.db", mode=0o640)
        copy(mirror, tmp_path / "owner" / "b.db")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("group", "owner")]
    assert modes == [0o750, 0o700]


def test_mode_is_that_of_the_option_then_that_of_the_old_file(mirror: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"

    def mode_after(mode: int | None) -> int:
        copy(mirror, target, mode)
        return stat.S_IMODE(target.stat().st_mode)

    assert mode_after(0o640) == 0o640
    assert mode_after(None) == 0o640
    target.chmod(0o644)
    assert mode_after(None) == 0o644
    assert mode_after(0o600) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another group")
def test_replaced_copy_keeps_its_owner_and_group(mirror: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    copy(mirror, target, 0o640)
    os.chown(target, 4321, 1234)
    copy(mirror, target)
    status = target.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4321, 1234, 0o640)


def test_copy_is_marked_and_the_mirror_is_not(mirror: Path, tmp_path: Path) -> None:
    def copied_at(path: Path) -> list[tuple[str | None, str | None]]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute("SELECT copied_at, origin FROM mirror_identity").fetchall()

    copy(mirror, tmp_path / "unused.db")
    assert copied_at(tmp_path / "unused.db") == [("2026-06-01T12:00:00.000000Z", None)]
    assert copied_at(mirror) == []
    with closing(sqlite3.connect(mirror)) as connection, connection:
        connection.execute("INSERT INTO mirror_identity (id, origin) VALUES (1, 'https://a.example')")
    copy(mirror, tmp_path / "used.db")
    assert copied_at(tmp_path / "used.db") == [("2026-06-01T12:00:00.000000Z", "https://a.example")]
    assert copied_at(mirror) == [(None, "https://a.example")]


def test_schema_without_a_place_for_the_mark_can_be_copied(mirror: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(mirror)) as connection, connection:
        connection.execute("DROP TABLE mirror_identity")
    assert copy(mirror, tmp_path / "copy.db").rows["source_sessions"] == 200


@pytest.mark.parametrize("mode", ["640x", "8", "0888", "u=rw", "1777", "040", "000"])
def test_mode_that_is_not_octal_or_that_its_owner_cannot_read_is_a_usage_error(tmp_path: Path, mode: str) -> None:
    done = CliRunner().invoke(cli, ["backup", str(tmp_path / "x.db"), "--mode", mode])
    assert done.exit_code == 2
    assert "not a mode" in done.output


def test_message_on_postgresql_names_pg_dump(tmp_path: Path) -> None:
    environment = {"SYNCD_DATABASE_URL": "postgresql+asyncpg://somebody@localhost/none"}
    done = CliRunner().invoke(cli, ["backup", str(tmp_path / "x.db")], env=environment)
    assert isinstance(done.exception, UsageError)
    assert "pg_dump" in str(done.exception)


def test_two_concurrent_backups_to_one_file_are_both_complete(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copies" / "copy.db"
    target.parent.mkdir()
    real = files.sync
    during: list[Path] = []

    def sync(path: Path) -> None:
        if not during:  # the first copy is verified; a second backup starts, and fails, before the first is in place
            during.append(path)
            with monkeypatch.context() as patch:
                patch.setattr(backup, "_copy_snapshot", lambda *_: {})
                with pytest.raises(DatabaseUnusableError):
                    copy(mirror, target)
        real(path)

    monkeypatch.setattr(backup, "sync", sync)
    copy(mirror, target)
    assert rows(target) == 200
    assert [file.name for file in target.parent.iterdir()] == ["copy.db"]


def test_file_that_a_killed_backup_left_is_removed_by_the_next_one(mirror: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    die = (
        "import datetime, os, pathlib, signal, sys\nfrom syncd.mirror.copy import backup\n"
        "backup._verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "backup.back_up(*map(pathlib.Path, sys.argv[1:]), now=datetime.datetime.now(datetime.UTC))"
    )
    done = subprocess.run([sys.executable, "-c", die, mirror, folder / "monday.db"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert sum(file.stat().st_size for file in folder.iterdir()) > 0
    copy(mirror, folder / "tuesday.db")
    assert [file.name for file in folder.iterdir()] == ["tuesday.db"]


def test_file_that_is_not_a_database_is_not_replaced(mirror: Path, tmp_path: Path) -> None:
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


def test_database_that_is_no_backup_is_not_replaced(mirror: Path, tmp_path: Path) -> None:
    foreign, other = tmp_path / "invoices.db", tmp_path / "other.db"
    with closing(sqlite3.connect(foreign)) as made:
        made.execute("CREATE TABLE invoices (id INTEGER)")
    copy(mirror, other)
    with closing(sqlite3.connect(other, isolation_level=None)) as started:
        started.execute("UPDATE mirror_identity SET copied_at = NULL")  # as the start of a daemon does
    for target in (foreign, other):
        before = target.read_bytes()
        with pytest.raises(UsageError, match="that is not a backup of syncd, and its content would be lost"):
            copy(mirror, target)
        assert target.read_bytes() == before


@pytest.mark.parametrize("ending", files.SIDE_FILES)
def test_backup_that_a_program_has_open_is_not_replaced(mirror: Path, tmp_path: Path, ending: str) -> None:
    target = tmp_path / "copy.db"
    copy(mirror, target)
    beside = tmp_path / f"copy.db{ending}"
    beside.touch()
    with pytest.raises(UsageError, match="exists: a program has the backup open"):
        copy(mirror, target)
    beside.unlink()
    copy(mirror, target)


def test_backup_that_an_older_release_made_without_a_mark_is_replaced(mirror: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    with closing(sqlite3.connect(target)) as old:
        old.execute("CREATE TABLE alembic_version (version_num TEXT)")
    lock = tmp_path / "copy.db.lock"
    lock.touch()  # a daemon has used this one
    with pytest.raises(UsageError, match="that is not a backup of syncd"):
        copy(mirror, target)
    lock.unlink()
    copy(mirror, target)
    assert rows(target) == 200


def test_database_that_begins_to_be_used_during_a_backup_is_not_replaced(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy.db"
    copy(mirror, target)
    monkeypatch.setattr(backup, "sync", lambda _: (tmp_path / "copy.db-wal").touch())
    with pytest.raises(UsageError, match="a program has the backup open"):
        copy(mirror, target)


def test_link_is_followed(mirror: Path, tmp_path: Path) -> None:
    link, real = tmp_path / "latest.db", tmp_path / "monday.db"
    link.symlink_to(real)
    for _ in range(2):
        copy(mirror, link)
        assert link.is_symlink()
        assert rows(real) == 200
