"""`syncd export` as its user types it."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.cli.export import EXPORTABLE
from syncd.files.exports import export, plan
from syncd.mirror.db.sqlite import sync_engine
from syncd.mirror.read import catalog, rows
from tests.helpers import harness as harnesses
from tests.helpers.programs import environment, syncd, without


async def mirror(folder: Path, sessions: int = 20) -> None:
    async with harnesses.open_harness(folder, sessions=sessions) as harness:
        await harness.one_pass()


async def test_export_prints_the_files_that_it_wrote(tmp_path: Path) -> None:
    await mirror(tmp_path)
    done = syncd(tmp_path, "export", "out", "--format", "csv")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "out/chat_sessions.csv  20 rows")
    assert "all from one snapshot" in done.stderr


async def test_json_holds_counts_and_the_freshness_of_the_snapshot(tmp_path: Path) -> None:
    await mirror(tmp_path)
    done = syncd(tmp_path, "export", "out", "--format", "jsonl", "--json")
    said = json.loads(done.stdout)
    assert said["format"] == "jsonl"
    assert said["last_complete_pass_at"] == "2026-06-01T12:00:00.000000Z"
    for file in said["files"]:
        path = tmp_path / "out" / file["file"]
        assert file["bytes"] == path.stat().st_size
        assert file["rows"] == len(path.read_bytes().splitlines())


async def test_foreign_files_and_missing_extra_are_usage_errors(tmp_path: Path) -> None:
    await mirror(tmp_path)
    (tmp_path / "chat_sessions.csv").write_text("mine")
    done = syncd(tmp_path, "export", tmp_path, "--format", "csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert "which syncd did not write" in done.stderr
    done = syncd(tmp_path, "export", "out", "--format", "parquet", PYTHONPATH=without(tmp_path, "pyarrow"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --format parquet needs pyarrow, which is not installed; "
        f"run: {shlex.quote(sys.executable)} -m pip install 'syncd[parquet]', or choose --format csv or jsonl\n"
    )


def test_mirror_that_is_not_there_is_exit_3_and_makes_no_file(tmp_path: Path) -> None:
    done = syncd(tmp_path, "export", "out", "--format", "csv")
    assert done.returncode == 3
    assert "there is no database" in done.stderr
    assert not (tmp_path / "syncd.db").exists()


def on_a_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run syncd with its standard error on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "syncd", *arguments]
    more = environment(folder, TERM="xterm")
    done = subprocess.run(command, cwd=folder, env=more, stdout=subprocess.PIPE, stderr=theirs, check=False)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    return done.returncode, shown


async def test_progress_is_shown_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    await mirror(tmp_path)
    code, shown = on_a_terminal(tmp_path, "export", "out", "--format", "csv")
    assert code == 0
    assert "rows" in shown
    assert "of 81" in shown  # 20 sessions in three files, their 20 source ids, and one pass
    assert "of 81" not in syncd(tmp_path, "export", "out", "--format", "csv").stderr


def test_only_accepts_every_view_and_table() -> None:
    assert set(EXPORTABLE) == set(catalog.EXPORTED)


async def test_export_since_prints_the_number_at_which_the_next_one_continues(tmp_path: Path) -> None:
    await mirror(tmp_path)
    done = syncd(tmp_path, "export", "out", "--format", "csv", "--since", "5", "--mode", "0644")
    assert (done.returncode, done.stdout) == (0, "out/chat_session_changes.csv  15 rows\n")
    assert "continue with: --since 20\n" in done.stderr
    assert (tmp_path / "out" / "chat_session_changes.csv").stat().st_mode & 0o777 == 0o644
    beyond = syncd(tmp_path, "export", "out", "--format", "csv", "--since", "21")
    assert (beyond.returncode, beyond.stdout) == (2, "")


@pytest.mark.parametrize("mode", ["0040", "640x", "8", "01640", "rw", ""])
def test_mode_that_is_not_one_is_a_usage_error(tmp_path: Path, mode: str) -> None:
    done = syncd(tmp_path, "export", "out", "--format", "csv", "--mode", mode)
    assert done.returncode == 2
    assert "0640" in done.stderr


def ignore(_: int) -> None:
    pass


async def test_all_files_are_of_one_moment_whatever_is_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with harnesses.open_harness(tmp_path, sessions=30) as harness:
        await harness.one_pass()
        other = sync_engine(tmp_path / "syncd.db")
        stream, planned = rows.stream, plan(tmp_path / "out", "jsonl")

        def interrupted(connection: sa.Connection, name: str, **options: Any) -> Iterator[Sequence[Any]]:
            with other.begin() as writer:
                writer.exec_driver_sql("DELETE FROM sessions WHERE key = (SELECT max(key) FROM sessions)")
                writer.exec_driver_sql("DELETE FROM source_sessions")
            return stream(connection, name, **options)

        monkeypatch.setattr(rows, "stream", interrupted)
        summary = await harness.database.read(
            lambda c: export(c, planned, now=datetime.now(UTC), begin=ignore, advance=ignore)
        )
        other.dispose()
        counts = {file["file"].partition(".")[0]: file["rows"] for file in summary["files"]}
        assert counts["chat_sessions"] == counts["chat_sessions_all"] == counts["chat_session_history"] == 30
        assert counts["source_sessions"] == 30
        assert len(await harness.live()) == 30 - len(catalog.EXPORTED_BY_DEFAULT)
