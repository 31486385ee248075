"""`syncd restore` of a backup that is cut off, on a full disk, and over a mirror that was moved."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from syncd.cli.restore import _backup
from syncd.errors import DatabaseUnusableError, SyncdError
from syncd.mirror.copy import backup as backing_up
from syncd.mirror.copy import restore as restoring
from syncd.mirror.copy.backup import back_up
from syncd.mirror.copy.restore import restore
from syncd.mirror.db.sqlite_module import sqlite3
from tests.cli.conftest import Call, syncd
from tests.mirror.copy.test_restore import NOW, make, rows

__all__ = ["syncd"]
MARKER = "SELECT source_session_id FROM source_sessions"


@pytest.mark.parametrize("lost", [1, 100, 4095, 4096, 9000])
def test_backup_that_lacks_its_end_is_refused_and_the_mirror_stays(tmp_path: Path, lost: int) -> None:
    mirror, backup = make(tmp_path / "syncd.db", "mirror"), tmp_path / "backup.db"
    back_up(make(tmp_path / "other.db", "backup"), backup, now=NOW)
    with backup.open("rb+") as file:
        file.truncate(backup.stat().st_size - lost)
    with pytest.raises(DatabaseUnusableError, match=r"is cut off: it has [0-9]+ of [0-9]+ bytes; if it was copied"):
        restore(mirror, backup, now=NOW, by="alice")
    assert rows(mirror, MARKER) == [("mirror",)]


def full(*_: Any) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


def test_full_disk_during_a_restore_blames_the_disk_and_not_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, backup = make(tmp_path / "syncd.db", "mirror"), tmp_path / "backup.db"
    back_up(mirror, backup, now=NOW)
    monkeypatch.setattr(restoring, "_copy", full)
    with pytest.raises(SyncdError) as failed:
        restore(mirror, backup, now=NOW, by="alice")
    assert str(failed.value) == f"the restore failed: no space is left in {tmp_path}; make room, see: df -h"
    assert rows(mirror, MARKER) == [("mirror",)]


def test_full_disk_during_a_backup_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = make(tmp_path / "syncd.db", "mirror")
    monkeypatch.setattr(backing_up, "_copy_snapshot", full)
    with pytest.raises(SyncdError) as failed:
        back_up(mirror, tmp_path / "folder" / "backup.db", now=NOW)
    assert str(failed.value) == f"no backup was made: no space is left in {tmp_path / 'folder'}; make room, see: df -h"


def test_restore_over_a_mirror_that_was_moved_warns_that_both_act(syncd: Call, tmp_path: Path) -> None:
    make(tmp_path / "syncd.db", "mirror")
    assert syncd("backup", "backup.db").code == 0
    assert syncd("migrate-store", "--to", "sqlite:///there.db").code == 0
    done = syncd("restore", "backup.db")
    assert done.code == 0
    there = f"sqlite+aiosqlite:///{tmp_path / 'there.db'}"
    assert f"warning: the replaced mirror was moved to {there}, and the restored one acts again" in done.err


def test_error_after_standard_input_was_read_is_not_blamed_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a backup")))
    with pytest.raises(PermissionError), _backup("-", tmp_path / "syncd.db"):
        raise PermissionError("of the lock file")
    assert list(tmp_path.glob("*input*")) == []
