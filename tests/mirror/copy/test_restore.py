"""`syncd restore`: the backup is in place completely or not at all, and its open operations do not run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from syncd.errors import DatabaseBusyError, DatabaseUnusableError, UsageError
from syncd.mirror.copy import restore as restoring
from syncd.mirror.copy.backup import back_up
from syncd.mirror.copy.restore import Restored, restore
from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema.revisions import HEAD
from syncd.rules.identity import Identity
from tests.helpers.old_schema import upgrade
from tests.helpers.programs import ROOT

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
OPERATIONS = """
INSERT INTO operations (kind, session_id, state, lease_until, lease_owner, fence) VALUES
    ('delete', 'SES1', 'pending', NULL, NULL, 0), ('delete', 'SES2', 'running', '2026-01-01T00:00:00.000000Z', 'x', 1),
    ('delete', 'SES3', 'unknown', NULL, NULL, 1);
INSERT INTO operations (kind, session_id, state, finished_at) VALUES
    ('delete', 'SES4', 'succeeded', '2026-01-01T00:00:00.000000Z'),
    ('delete', 'SES5', 'dead', '2026-01-01T00:00:00.000000Z');
"""


def make(path: Path, marker: str, statements: str = "", revision: str = HEAD) -> Path:
    """Make a mirror whose only source id says which one it is."""

    async def fill() -> None:
        async with Database.create(sa.make_url(f"sqlite+aiosqlite:///{path}"), busy_timeout=5) as database:
            await database.write(lambda c: upgrade(c, revision))

    anyio.run(fill)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO source_sessions (source_session_id) VALUES (?)", (marker,))
        connection.executescript(statements)
    return path


def rows(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def marker(path: Path) -> list[str]:
    return [row[0] for row in rows(path, "SELECT source_session_id FROM source_sessions ORDER BY 1")]


def put_back(database: Path, backup: Path) -> Restored:
    return restore(database, backup, now=NOW, by="alice")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Make the mirror to be replaced, with a last change that is only in its WAL, as after a kill."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    made = make(tmp_path / "living.db", "old")
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("INSERT INTO source_sessions (source_session_id) VALUES ('old, in the WAL')")
        for ending in ("", "-wal"):
            shutil.copyfile(f"{made}{ending}", folder / f"syncd.db{ending}")
    return folder / "syncd.db"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Make a backup with operations in every state."""
    source = make(tmp_path / "source.db", "new", OPERATIONS)
    back_up(source, tmp_path / "backup.db", now=NOW)
    return tmp_path / "backup.db"


def test_backup_replaces_the_mirror_and_its_wal(old: Path, backup: Path) -> None:
    done = put_back(old, backup)
    assert marker(old) == ["new"]
    assert done.rows["operations"] == 5
    assert done.kept == Path(f"{old}.before-restore-20260601T120000Z")
    assert marker(done.kept) == ["old", "old, in the WAL"]
    assert sorted(path.name for path in old.parent.iterdir()) == ["syncd.db", done.kept.name]
    for path in (old, done.kept):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_open_operations_are_on_hold_and_final_ones_are_not(old: Path, backup: Path) -> None:
    assert put_back(old, backup).on_hold == 3
    held = rows(old, "SELECT session_id, state, on_hold_at, lease_owner FROM operations ORDER BY id")
    at = "2026-06-01T12:00:00.000000Z"
    assert held == [
        ("SES1", "pending", at, None), ("SES2", "unknown", at, None), ("SES3", "unknown", at, None),
        ("SES4", "succeeded", None, None), ("SES5", "dead", None, None),
    ]  # fmt: skip
    assert rows(old, "SELECT copied_at FROM mirror_identity") == [(None,)]


def test_numbers_of_the_change_feed_continue_above_those_that_readers_have_seen(old: Path, backup: Path) -> None:
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO mirror_totals VALUES (1, 5000000, 0, 0)")
    put_back(old, backup)
    assert rows(old, "SELECT last_seq > 5000000 FROM mirror_totals") == [(1,)]


def test_restore_is_in_the_log_of_operator_actions(old: Path, backup: Path) -> None:
    put_back(old, backup)
    ((at, by, action, detail),) = rows(old, "SELECT at, by, action, detail FROM operator_actions")
    assert (at, by, action) == ("2026-06-01T12:00:00.000000Z", "alice", "restore")
    assert str(backup) in detail
    assert "3 operations on hold" in detail


def test_mirror_that_does_not_exist_is_made(tmp_path: Path, backup: Path) -> None:
    done = put_back(tmp_path / "fresh.db", backup)
    assert done.kept is None
    assert marker(tmp_path / "fresh.db") == ["new"]


@pytest.mark.parametrize("damage", ["page", "header", "text", "empty"])
def test_damaged_mirror_is_replaced_and_kept(old: Path, backup: Path, damage: str) -> None:
    content = bytearray(old.read_bytes())
    if damage == "page":
        content[4096:] = b"\xff" * (len(content) - 4096)
    elif damage == "header":
        content[16:40] = b"\xff" * 24
    old.write_bytes({"text": b"no database at all" * 100, "empty": b""}.get(damage, bytes(content)))
    before, wal = old.read_bytes(), Path(f"{old}-wal").read_bytes()
    kept = put_back(old, backup).kept
    assert marker(old) == ["new"]
    assert kept is not None
    assert not Path(f"{old}-wal").exists()
    if damage == "text":  # SQLite folds the WAL into the others, damaged as they are
        assert (kept.read_bytes(), Path(f"{kept}-wal").read_bytes()) == (before, wal)


def test_second_restore_in_one_second_keeps_both_old_mirrors(old: Path, backup: Path) -> None:
    first, second = put_back(old, backup).kept, put_back(old, backup).kept
    assert first is not None
    assert second == Path(f"{first}-2")
    assert (marker(first), marker(second)) == (["old", "old, in the WAL"], ["new"])


def test_backup_of_an_older_schema_is_brought_to_head(tmp_path: Path, old: Path) -> None:
    done = put_back(old, make(tmp_path / "older.db", "older", OPERATIONS, revision="0001"))
    assert (done.revision, done.on_hold) == ("0001", 3)
    assert rows(old, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert marker(old) == ["older"]


def test_copy_with_a_wal_of_its_own_is_restored_with_it(tmp_path: Path, old: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for ending in ("", "-wal"):
        shutil.copyfile(f"{old}{ending}", folder / f"copy.db{ending}")
    put_back(tmp_path / "fresh.db", folder / "copy.db")
    assert marker(tmp_path / "fresh.db") == ["old", "old, in the WAL"]


def test_backup_is_not_changed_and_may_be_in_a_folder_without_write_access(tmp_path: Path, old: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    source = folder / "wal-mode.db"
    shutil.copyfile(old, source)  # in WAL mode, without a WAL: as a raw copy of a stopped mirror
    before = source.read_bytes()
    folder.chmod(0o500)
    put_back(tmp_path / "fresh.db", source)
    assert [path.name for path in folder.iterdir()] == ["wal-mode.db"]
    assert source.read_bytes() == before
    assert marker(tmp_path / "fresh.db") == ["old"]


@pytest.mark.parametrize("name", ["syncd.db", "syncd.db-wal", "link.db", "hard.db"])
def test_mirror_itself_is_not_a_backup(old: Path, name: str) -> None:
    (old.parent / "link.db").symlink_to(old)
    (old.parent / "hard.db").hardlink_to(old)
    with pytest.raises(UsageError, match="is the mirror itself"):
        put_back(old, old.parent / name)
    assert marker(old) == ["old", "old, in the WAL"]


def test_missing_file_and_folder_are_usage_errors(tmp_path: Path, old: Path) -> None:
    for path, problem in ((tmp_path / "none.db", "there is no file"), (tmp_path, "is not a file")):
        with pytest.raises(UsageError, match=problem):
            put_back(old, path)


@pytest.mark.parametrize("kind", ["text", "empty", "foreign", "newer", "damaged", "half moved"])
def test_file_that_is_not_a_valid_backup_is_refused_and_nothing_changes(
    tmp_path: Path, old: Path, backup: Path, kind: str
) -> None:
    if kind in {"text", "empty"}:
        backup.write_text("text" if kind == "text" else "")
    elif kind == "damaged":
        content = bytearray(backup.read_bytes())
        content[4096 * 3 : 4096 * 20] = b"\xff" * 4096 * 17
        backup.write_bytes(content)
    else:
        with closing(sqlite3.connect(backup)) as connection, connection:
            version = {"foreign": "DROP TABLE alembic_version", "newer": "UPDATE alembic_version SET version_num = '9'"}
            connection.execute(version.get(kind, f"UPDATE alembic_version SET version_num = 'moving {HEAD}'"))
    before = {path.name: path.read_bytes() for path in old.parent.iterdir()}
    with pytest.raises(DatabaseUnusableError):
        put_back(old, backup)
    assert {path.name: path.read_bytes() for path in old.parent.iterdir()} == before


def test_mirror_that_another_program_has_open_is_not_replaced(
    old: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(old, isolation_level=None)) as other:
        other.execute("SELECT count(*) FROM sessions").fetchall()
        with pytest.raises(DatabaseBusyError, match="another program has"):
            put_back(old, backup)
        assert other.execute("SELECT count(*) FROM source_sessions").fetchone() == (2,)
    assert marker(old) == ["old", "old, in the WAL"]
    assert [path.name for path in old.parent.iterdir() if "before-restore" in path.name] == []


def test_link_to_the_mirror_is_followed(tmp_path: Path, old: Path, backup: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(old)
    put_back(link, backup)
    assert link.is_symlink()
    assert marker(old) == ["new"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_owner_of_the_mirror_or_of_its_folder_gets_the_new_files(tmp_path: Path, old: Path, backup: Path) -> None:
    os.chown(old, 4321, 1234)
    kept = put_back(old, backup).kept
    assert kept is not None
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (old, kept)} == {(4321, 1234)}
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, 55, 66)
    put_back(folder / "syncd.db", backup)
    assert ((folder / "syncd.db").stat().st_uid, (folder / "syncd.db").stat().st_gid) == (55, 66)


def test_mirror_of_another_user_is_refused(old: Path, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(UsageError, match="belongs to user"):
        put_back(old, backup)


def test_folder_that_does_not_exist_is_named(tmp_path: Path, backup: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere; create it"):
        put_back(tmp_path / "nowhere" / "syncd.db", backup)


def test_tenant_of_the_backup_is_reported(tmp_path: Path, backup: Path) -> None:
    with closing(sqlite3.connect(backup)) as connection, connection:
        connection.execute("UPDATE mirror_identity SET origin = 'https://a.example', tenant_id = 'TEN1'")
    assert put_back(tmp_path / "fresh.db", backup).pinned == Identity("https://a.example", "TEN1")


KILLED = '''
"""Restore in child processes, each killed one step later; print what each kill left behind."""
import datetime, json, os, pathlib, shutil, signal, sys
from syncd.mirror.copy import restore

template, backup, work = map(pathlib.Path, sys.argv[1:4])
NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
STEPS = ("open", "os.rename", "os.remove", "os.chmod", "os.chown", "shutil.copyfile", "sqlite3.connect")

def restored(folder, kill_at):
    """Restore in a child; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps = 0
    def hook(event, arguments):
        nonlocal steps
        if event in STEPS and any(str(folder) in str(each) for each in arguments):
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    restore.restore(folder / "syncd.db", backup, now=NOW, by="a test")
    os._exit(0)

number = 0
while True:
    number += 1
    folder = work / f"kill{number}"
    shutil.copytree(template, folder)
    code = restored(folder, number)
    print(json.dumps({"folder": str(folder), "code": code}), flush=True)
    if code == 0:
        break
'''


@pytest.mark.timeout(180)
def test_kill_at_any_step_leaves_the_old_or_the_new_mirror_complete(tmp_path: Path, old: Path, backup: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-c", KILLED, str(old.parent), str(backup), str(work)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    ended = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run["code"] for run in ended[:-1]] == [-signal.SIGKILL] * (len(ended) - 1)
    assert len(ended) > 15
    markers = []
    for run in ended:
        database = Path(run["folder"]) / "syncd.db"
        assert database.stat().st_nlink == 1
        assert rows(database, "PRAGMA integrity_check") == [("ok",)], run
        markers.append(marker(database))
        put_back(database, backup)  # a second restore works, and removes what the kill left behind
        assert marker(database) == ["new"]
        assert [path.name for path in database.parent.iterdir() if path.name.startswith(".")] == []
    old_ones = [["old", "old, in the WAL"]] * (len(markers) - markers.count(["new"]))
    assert markers == old_ones + [["new"]] * markers.count(["new"])
    assert len(old_ones) > 10
