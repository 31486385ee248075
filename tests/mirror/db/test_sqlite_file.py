"""The SQLite file: a second name is refused, its lock works without its text, and one library opens it."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.errors import DatabaseAwayError, DatabaseUnusableError
from syncd.mirror.copy.backup import back_up
from syncd.mirror.db import sqlite_file
from syncd.mirror.db.daemon_lock import daemon_lock, require_free
from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite_module import is_safe, sqlite3
from syncd.mirror.read import views

ROOT = Path(__file__).resolve().parents[3]
MOUNTED = "63 43 254:0 /home/u/x.db {path} rw,relatime - ext4 /dev/vda rw\n"


def url_of(path: Path) -> sa.URL:
    return sa.URL.create("sqlite+aiosqlite", database=str(path))


def hold(path: Path) -> None:
    with daemon_lock(path, "run"):
        pass


OPENERS: list[Callable[[Path], Any]] = [
    lambda path: Database(url_of(path)),
    lambda path: back_up(path, path.with_name("copy.db"), now=datetime.now(UTC)),
    hold,
]


@pytest.mark.parametrize("open_it", OPENERS)
def test_file_with_two_hard_links_is_refused_by_either_name(folder: Path, open_it: Callable[[Path], Any]) -> None:
    (folder / "other").mkdir()
    (folder / "other/link.db").hardlink_to(folder / "syncd.db")
    for path in (folder / "syncd.db", folder / "other/link.db"):
        with pytest.raises(DatabaseUnusableError, match=r"has 2 hard links.*mount the folder"):
            open_it(path)
    (folder / "other/link.db").unlink()
    open_it(folder / "syncd.db")


@pytest.mark.parametrize("open_it", OPENERS)
def test_file_that_is_a_mount_point_is_refused(
    folder: Path, open_it: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = folder / "mountinfo"
    monkeypatch.setattr(sqlite_file, "MOUNTS", mounts)
    odd = folder / "with space\tand \\.db"
    (folder / "syncd.db").rename(odd)
    mounts.write_text(MOUNTED.format(path=str(odd).replace("\\", r"\134").replace(" ", r"\040").replace("\t", r"\011")))
    with pytest.raises(DatabaseUnusableError, match="mount the folder that contains it"):
        open_it(odd)
    (folder / "link.db").symlink_to(odd)  # SQLite follows links, to the same mount
    with pytest.raises(DatabaseUnusableError, match="mount the folder that contains it"):
        open_it(folder / "link.db")
    mounts.write_text(MOUNTED.format(path=folder))
    open_it(odd)


def test_quick_status_returns_nothing_for_a_file_with_two_names(folder: Path) -> None:
    url = f"sqlite+aiosqlite:///{folder / 'syncd.db'}"
    assert views.overview_of(url) is not None
    (folder / "link.db").hardlink_to(folder / "syncd.db")
    assert views.overview_of(url) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_lock_whose_text_cannot_be_written_is_held_and_released(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fails(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fails)
    with daemon_lock(folder / "syncd.db", "run"), pytest.raises(DatabaseUnusableError, match="is held by"):
        require_free(folder / "syncd.db")
    require_free(folder / "syncd.db")


def test_lock_names_its_holder_and_leaves_an_empty_file(folder: Path) -> None:
    lock = folder / "syncd.db.lock"
    with daemon_lock(folder / "syncd.db", "run"):
        assert lock.read_text().startswith(f"syncd run, process {os.getpid()}, since 2")
    assert lock.read_text() == ""


def test_lock_that_is_a_link_is_refused_and_its_target_is_left_as_it_is(folder: Path) -> None:
    victim = folder / "victim"
    victim.write_text("of another user")
    (folder / "syncd.db.lock").symlink_to(victim)
    with pytest.raises(DatabaseUnusableError, match=r"syncd\.db\.lock is a symbolic link; remove it"):
        hold(folder / "syncd.db")
    require_free(folder / "syncd.db")
    assert victim.read_text() == "of another user"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_lock_that_is_given_away_is_the_one_that_is_held(folder: Path) -> None:
    lock, victim = folder / "syncd.db.lock", folder / "victim"
    with daemon_lock(folder / "syncd.db", "restore") as held:
        victim.touch()
        lock.rename(folder / "moved.lock")
        lock.symlink_to(victim)
        held.give_to(65534, 65534)
    assert victim.stat().st_uid == 0
    assert (folder / "moved.lock").stat().st_uid == 65534


def test_removed_lock_is_taken_again_unless_another_daemon_was_faster(folder: Path) -> None:
    path, lock = folder / "syncd.db", folder / "syncd.db.lock"
    with daemon_lock(path, "run") as first:
        lock.unlink()
        first.keep()
        with pytest.raises(DatabaseUnusableError, match="is held by syncd run"):
            require_free(path)
        lock.unlink()
        with daemon_lock(path, "once"), pytest.raises(DatabaseUnusableError, match="is held by syncd once"):
            first.keep()


def test_removed_lock_that_cannot_be_made_now_is_taken_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lock = folder / "syncd.db", folder / "syncd.db.lock"

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with daemon_lock(path, "run") as held:
        lock.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", full)
            held.keep()
        assert not lock.exists()
        held.keep()
        assert lock.exists()


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(errno.ENOSPC, DatabaseAwayError), (errno.EDQUOT, DatabaseAwayError), (errno.EROFS, DatabaseUnusableError)],
)
def test_full_disk_is_a_transient_error_and_a_read_only_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, meaning: type[Exception]
) -> None:
    def fails(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fails)
    for create in (sqlite_file.create, hold):
        with pytest.raises(DatabaseUnusableError, match="cannot") as caught:
            create(tmp_path / "new.db")
        assert type(caught.value) is meaning


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False), ((3, 50, 6), False),
        ((3, 50, 7), True), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 53, 4), True), ((4, 0, 0), True),
    ],
)  # fmt: skip
def test_sqlite_releases_that_can_corrupt_a_wal_database_are_unsafe(version: tuple[int, ...], *, safe: bool) -> None:
    assert is_safe(version) == safe


async def test_every_connection_of_a_database_uses_the_same_sqlite_library(folder: Path) -> None:
    def version(connection: sa.Connection) -> str:
        return str(connection.exec_driver_sql("SELECT sqlite_version()").scalar_one())

    async with Database(url_of(folder / "syncd.db")) as database:
        versions = {await database.read(version), await database.write(version)}
        versions |= {row[0] for row in database.read_inline("SELECT sqlite_version()") or ()}
    assert versions == {sqlite3.sqlite_version}


def test_only_one_module_imports_a_sqlite_library() -> None:
    importers = set()
    for path in (ROOT / "syncd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] in {"sqlite3", "pysqlite3"} for name in names):
                importers.add(path.relative_to(ROOT).as_posix())
    assert importers == {"syncd/mirror/db/sqlite_module.py"}


def test_none_is_stored_as_null() -> None:
    """The adapter for None, which makes inserts fast, changes no value."""
    connection = sqlite3.connect(":memory:")
    values = (None, "", "text", 0, 1.5, b"bytes")
    assert connection.execute("SELECT ?, ?, ?, ?, ?, ?", values).fetchone() == values
    connection.close()


async def test_query_on_the_event_loop_leaves_a_damaged_file_to_a_read_that_reports_it(folder: Path) -> None:
    path = folder / "syncd.db"
    with path.open("r+b") as file:
        file.write(b"not a database, but longer than its header " * 4)
    async with Database(url_of(path)) as database:
        assert database.read_inline("SELECT 1 FROM sessions") is None
        with pytest.raises(DatabaseUnusableError, match="restore a backup"):
            await database.read(lambda c: c.exec_driver_sql("SELECT 1 FROM sessions").all())
