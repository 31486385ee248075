"""Every snippet of `docs/reading.md` that can be run here is run, in the order of the page, beside a mirror."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from syncd.mirror.db.sqlite_module import sqlite3
from syncd.sandbox import Habits
from tests.helpers import harness as harnesses
from tests.helpers.programs import ROOT, environment, start
from tests.helpers.sample_history import make_history

PAGE = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


async def test_snippets_run_from_top_to_bottom(tmp_path: Path) -> None:
    async with harnesses.open_harness(tmp_path, sessions=60, habits=Habits(page_size=25)) as harness:
        await make_history(harness)
    (tmp_path / "snapshots").mkdir()
    path = shim(tmp_path)
    ran, skipped = [], []
    for language, text in BLOCKS:
        if language not in {"sh", "python"} or text.strip() == "syncd browse":
            continue  # browse goes on until it is stopped; its own test runs it
        reason = why_not(text)
        if reason:
            skipped.append(reason)
            continue
        command = ["sh", "-euc", text] if language == "sh" else [sys.executable, "-W", "error", "-c", text]
        done = run(command, tmp_path, path)
        assert done.returncode == 0, (text, done.stderr)
        assert done.stdout.strip(), text
        ran.append(text)
    assert len(ran) + len(skipped) == 9
    assert len(skipped) <= 1, skipped


def why_not(text: str) -> str | None:
    """Say why a snippet cannot be run here; None when it can."""
    if text.startswith("sqlite3 ") and shutil.which("sqlite3") is None:
        return "there is no sqlite3 shell"
    return None


def shim(folder: Path) -> str:
    """Return a PATH on which `syncd` is the one under test."""
    programs = folder / "bin"
    programs.mkdir()
    script = programs / "syncd"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m syncd "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"{programs}{os.pathsep}{os.environ['PATH']}"


def run(command: list[str], folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(folder, PATH=path), capture_output=True, text=True, check=False, timeout=50
    )


async def test_bare_browse_uses_the_address_of_the_page(tmp_path: Path) -> None:
    async with harnesses.open_harness(tmp_path) as harness:
        await harness.one_pass()
    process = start(tmp_path, "browse")
    try:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        process.kill()
        if said == "" and "cannot be used" in process.communicate()[1]:
            pytest.skip("another program has port 8001")
        assert f"<{said}>" in PAGE
    finally:
        process.kill()
        process.communicate()


LIMIT = 1100 * 4120


def wal(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


@pytest.mark.parametrize("fetched_to_the_end", [True, False])
def test_unfinished_query_keeps_the_wal_from_being_reset(tmp_path: Path, *, fetched_to_the_end: bool) -> None:
    path = tmp_path / "a.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("PRAGMA synchronous=OFF")
    writer.execute(f"PRAGMA journal_size_limit={LIMIT}")  # syncd's is 16 MB
    writer.execute("CREATE TABLE t (x)")
    writer.execute("INSERT INTO t VALUES (randomblob(100)), (randomblob(100)), (randomblob(100))")
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    rows = reader.execute("SELECT x FROM t")
    rows.fetchone()
    if fetched_to_the_end:
        rows.fetchall()
    for _ in range(3000):  # each writes a page; SQLite tries to reset the WAL after every 1000
        writer.execute("UPDATE t SET x = randomblob(100)")
    assert (wal(path) > 2 * LIMIT) == (not fetched_to_the_end)
    rows.close()
    reader.close()
    for _ in range(2):
        writer.execute("PRAGMA wal_checkpoint")
        writer.execute("UPDATE t SET x = randomblob(100)")
    assert wal(path) <= LIMIT
    writer.close()


async def test_job_of_the_change_feed_reads_each_version_once(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "queries.md").read_text(encoding="utf-8")
    (job,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)

    def lines() -> list[str]:
        done = run([sys.executable, "-W", "error", "-c", job], tmp_path, os.environ["PATH"])
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    async with harnesses.open_harness(tmp_path, sessions=20, habits=Habits(page_size=10)) as harness:
        await harness.one_pass()
        first = lines()
        assert [line.split()[1] for line in first] == list(harness.sandbox.live())
        assert lines() == []
        harness.sandbox.update("SES3", name="renamed")
        harness.clock.forward(60)
        await harness.one_pass()
        (line,) = lines()
        assert line.split()[1:3] == ["SES3", "updated"]
        assert "'name'" in line
