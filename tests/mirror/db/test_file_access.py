"""A database in a folder without write access: the error names the setting and the remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from syncd.mirror.db.sqlite_module import sqlite3
from tests.helpers.programs import environment, syncd

SETPRIV = shutil.which("setpriv")
COMMANDS = [["migrate"], ["once"], ["sources", "add", "s-1"]]


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """Make a folder in which syncd may not create files; root needs the setpriv command to drop its privileges."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        if SETPRIV is None:
            pytest.skip("needs the setpriv command")
        os.chown(folder, 65534, 65534)
    else:
        folder.chmod(0o555)
    return folder


def refused(folder: Path, *arguments: str, url: str) -> str:
    """Run a command without special privileges, assert that it exits with 3, and return its error."""
    rights = [str(SETPRIV), "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    env = environment(folder, ALBERT_TOKEN="t", ALBERT_BASE_URL="http://127.0.0.1:9", SYNCD_DATABASE_URL=url)
    command = [*rights, sys.executable, "-m", "syncd", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 3, done
    assert "Traceback" not in done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [("daemon.failed", 3, done.stderr)] if arguments == ("once",) else []  # other commands log nothing
    assert [(event["event"], event["exit_code"], f"error: {event['reason']}\n") for event in events] == failed
    return done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_folder_without_write_access_is_named_with_its_owner_and_the_setting(
    tmp_path: Path, closed: Path, command: list[str]
) -> None:
    error = refused(tmp_path, *command, url="sqlite:///closed/syncd.db")
    owner = "uid 65534" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    mode = "0755" if os.geteuid() == 0 else "0555"
    assert f"(uid {os.geteuid()}) may not create files in the folder {closed} (owner " in error
    assert f"{owner}), mode {mode}); change its owner or mode, or set SYNCD_DATABASE_URL" in error
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_database_in_a_folder_without_write_access_is_refused_and_not_waited_for(
    tmp_path: Path, closed: Path, command: list[str]
) -> None:
    assert syncd(tmp_path, "migrate", SYNCD_DATABASE_URL="sqlite:///open.db").returncode == 0
    closed.chmod(0o755)
    shutil.move(tmp_path / "open.db", closed / "syncd.db")
    if os.geteuid() != 0:
        closed.chmod(0o555)
    error = refused(tmp_path, *command, url="sqlite:///closed/syncd.db")
    assert f"may not create files in the folder {closed}" in error
    assert "SYNCD_DATABASE_URL" in error


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_folder_that_does_not_exist_is_named_with_the_setting(tmp_path: Path, command: list[str]) -> None:
    error = refused(tmp_path, *command, url="sqlite:///none/syncd.db")
    assert f"there is no folder {tmp_path / 'none'}; make it, or set SYNCD_DATABASE_URL" in error
    assert not (tmp_path / "none").exists()


def test_open_database_in_a_folder_without_write_access_can_be_used(tmp_path: Path, closed: Path) -> None:
    url = "sqlite:///closed/syncd.db"
    closed.chmod(0o777)
    assert syncd(tmp_path, "migrate", SYNCD_DATABASE_URL=url).returncode == 0
    with closing(sqlite3.connect(closed / "syncd.db")) as other:
        other.execute("SELECT count(*) FROM passes")
        closed.chmod(0o755 if os.geteuid() == 0 else 0o555)
        rights = [str(SETPRIV), "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        command = [*rights, sys.executable, "-m", "syncd", "sources", "add", "s-1"]
        env = environment(tmp_path, SYNCD_DATABASE_URL=url)
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=50)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["once"], ["restore", "--in-place"]], ids=" ".join)
def test_lock_file_of_another_user_is_named_with_its_owner(tmp_path: Path, command: list[str]) -> None:
    if os.geteuid() == 0 and SETPRIV is None:
        pytest.skip("needs the setpriv command")
    assert syncd(tmp_path, "migrate", SYNCD_DATABASE_URL="sqlite:///syncd.db").returncode == 0
    lock = tmp_path / "syncd.db.lock"
    lock.touch()
    lock.chmod(0o600 if os.geteuid() == 0 else 0o400)
    if os.geteuid() == 0:
        os.chown(lock, 65534, 65534)
    error = refused(tmp_path, *command, url="sqlite:///syncd.db")
    assert f"(uid {os.geteuid()}) may not write {lock} (owner " in error
    assert "; change its owner, or remove it while no daemon runs" in error


@pytest.mark.parametrize(
    "arguments", [["status"], ["operations", "list"], ["export", "../exported", "--format", "csv"]], ids=" ".join
)
def test_backup_in_a_folder_without_write_access_is_read(tmp_path: Path, closed: Path, arguments: list[str]) -> None:
    assert syncd(tmp_path, "migrate", SYNCD_DATABASE_URL="sqlite:///syncd.db").returncode == 0
    assert syncd(tmp_path, "backup", "backup.db", SYNCD_DATABASE_URL="sqlite:///syncd.db").returncode == 0
    closed.chmod(0o755)
    shutil.move(tmp_path / "backup.db", closed / "backup.db")
    (closed / "backup.db").chmod(0o444)
    closed.chmod(0o755 if os.geteuid() == 0 else 0o555)
    rights = [str(SETPRIV), "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    env = environment(tmp_path, SYNCD_DATABASE_URL=f"sqlite:///{closed / 'backup.db'}")
    command = [*rights, sys.executable, "-m", "syncd", *arguments]
    folder = tmp_path / "cwd"
    folder.mkdir()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == (1 if arguments == ["status"] else 0), done  # no pass was complete
    assert done.stderr == "" or arguments[0] == "export", done
    assert [file.name for file in closed.iterdir()] == ["backup.db"]
