"""`syncd backup -`: the verified copy on standard output, the summary on standard error."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from syncd.mirror.db.sqlite_module import sqlite3
from tests.helpers.programs import environment, syncd

COMMAND = [sys.executable, "-m", "syncd", "backup", "-"]
SOURCES = 30_000


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Make a mirror that is larger than a pipe and than the buffer of standard output."""
    assert syncd(tmp_path, "migrate").returncode == 0
    with closing(sqlite3.connect(tmp_path / "syncd.db")) as connection, connection:
        ids = ((f"source-{number}",) for number in range(SOURCES))
        connection.executemany("INSERT INTO source_sessions (source_session_id) VALUES (?)", ids)
    return tmp_path


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_backup_to_standard_output_is_a_marked_copy_that_can_be_restored(mirror: Path) -> None:
    done = subprocess.run(COMMAND, cwd=mirror, env=environment(mirror), capture_output=True, check=True)
    assert done.stderr.decode().startswith(f"standard output: {len(done.stdout)} bytes, verified; ")
    assert unfinished(mirror) == []
    (mirror / "copy.db").write_bytes(done.stdout)
    with closing(sqlite3.connect(mirror / "copy.db")) as copied:
        assert copied.execute("SELECT count(*) FROM source_sessions").fetchone() == (SOURCES,)
        assert copied.execute("SELECT copied_at IS NOT NULL FROM mirror_identity").fetchone() == (1,)
    assert syncd(mirror, "restore", "copy.db").returncode == 0


def test_reader_that_closes_the_pipe_ends_the_backup_without_a_traceback(mirror: Path) -> None:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(COMMAND, cwd=mirror, env=environment(mirror), **options) as process:  # type: ignore[call-overload]
        assert process.stdout.read(16) == b"SQLite format 3\0"
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, b"")
    assert unfinished(mirror) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_standard_output_on_a_full_disk_is_an_error(mirror: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            COMMAND, cwd=mirror, env=environment(mirror), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"verified" not in done.stderr


def test_terminal_is_refused_as_the_place_of_a_backup(mirror: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        COMMAND, cwd=mirror, env=environment(mirror), stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert "syncd backup - > FILE" in done.stderr


@pytest.mark.parametrize("option", ["--json", "--mode=0640"])
def test_options_that_are_for_a_file_are_refused_with_standard_output(mirror: Path, option: str) -> None:
    done = syncd(mirror, "backup", "-", option)
    assert (done.returncode, done.stdout) == (2, "")
    assert "leave --json and --mode out" in done.stderr
    assert not (mirror / "-").exists()


def test_file_whose_name_is_a_dash_is_named_with_its_folder(mirror: Path) -> None:
    assert syncd(mirror, "backup", "./-").returncode == 0
    assert (mirror / "-").is_file()
    assert syncd(mirror, "restore", "./-").returncode == 0
