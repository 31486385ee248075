"""Exports into a directory that a killed export left, or that another export is writing to."""

from __future__ import annotations

import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from syncd.errors import SyncdError, UsageError
from syncd.files import exports
from syncd.files.exports import MANIFEST, Plan, export, plan
from tests.helpers.harness import Harness, open_harness
from tests.helpers.programs import environment

pytestmark = pytest.mark.both_databases

TWO = ("operations", "passes")
KILL = "import os, pathlib, signal, sys\n"
KILL_BEFORE_THE_MANIFEST = (
    KILL
    + "from syncd.files import exports\nexports._write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
)
KILL_AFTER_RENAMES = (
    KILL + "real, left = pathlib.Path.replace, {0}\n"
    "def replace(self, target):\n"
    "    global left\n"
    "    left -= 1\n"
    "    return os.kill(os.getpid(), signal.SIGKILL) if left < 0 else real(self, target)\n"
    "pathlib.Path.replace = replace\n"
)


def ignore(_: int) -> None:
    pass


def work(connection: sa.Connection, planned: Plan, **options: Any) -> dict[str, Any]:
    calls = {"begin": ignore, "advance": ignore, **options}
    return export(connection, planned, now=datetime(2026, 6, 1, tzinfo=UTC), **calls)


async def write(harness: Harness, folder: Path, *only: str) -> None:
    planned = plan(folder, "csv", only=only)
    await harness.database.read(lambda c: work(c, planned))


async def killed(harness: Harness, folder: Path, code: str, *only: str) -> int:
    """Export in a process that executes the code first; return its exit code."""
    options = ["--format", "csv", *(part for name in only for part in ("--only", name))]
    command = [sys.executable, "-c", f"{code}from syncd.cli import main\nmain()", "export", str(folder), *options]
    more = environment(folder.parent, SYNCD_DATABASE_URL=str(harness.database.url))
    return (await anyio.run_process(command, check=False, env=more)).returncode


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text())  # type: ignore[no-any-return]


def manifested(folder: Path) -> set[str]:
    return {file["file"] for file in manifest(folder)["files"]}


async def test_files_of_a_killed_export_are_removed_by_the_next_one(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        await write(harness, tmp_path / "out")
        before = names(tmp_path / "out")
        assert await killed(harness, tmp_path / "out", KILL_BEFORE_THE_MANIFEST) == -signal.SIGKILL
        assert names(tmp_path / "out") > before
        await write(harness, tmp_path / "out")
        assert names(tmp_path / "out") == before


@pytest.mark.parametrize("renames", range(4))  # of the manifest, of two files, and of the manifest again
async def test_export_continues_after_a_kill_before_each_rename_of_the_first_one(tmp_path: Path, renames: int) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        out = tmp_path / "out"
        assert await killed(harness, out, KILL_AFTER_RENAMES.format(renames), *TWO) == -signal.SIGKILL
        assert len(names(out) & {"operations.csv", "passes.csv"}) == max(0, renames - 1)
        if (out / MANIFEST).exists():
            assert manifest(out)["exported_at"] is None
        await write(harness, out, *TWO)
        assert names(out) == {MANIFEST, *manifested(out)} == {MANIFEST, "operations.csv", "passes.csv"}
        assert manifest(out)["exported_at"] == "2026-06-01T00:00:00.000000Z"


async def test_manifest_describes_the_last_export_until_files_of_new_names_are_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    async with open_harness(tmp_path) as harness:
        await write(harness, tmp_path, "passes")
        before = manifest(tmp_path)
        monkeypatch.setattr(exports, "_put_in_place", fail)
        with pytest.raises(ZeroDivisionError):
            await write(harness, tmp_path, *TWO)
        assert manifested(tmp_path) == {"passes.csv", "operations.csv"}
        after = manifest(tmp_path)
        assert before["files"][0] in after.pop("files")
        assert after == {key: value for key, value in before.items() if key != "files"}


async def test_second_export_into_the_same_directory_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        first, second = (plan(tmp_path / "out", "csv", only=(name,)) for name in TWO)
        refusals = []

        def meanwhile(connection: sa.Connection) -> None:
            try:
                work(connection, second)
            except SyncdError as error:
                refusals.append((error.exit_code, str(error)))

        await harness.database.read(lambda c: work(c, first, begin=lambda _: meanwhile(c)))
        message = f"another export is writing to {tmp_path / 'out'}; run the command again when it has ended"
        assert [(code, text.partition(",")[0]) for code, text in refusals] == [(1, message)]
        assert manifested(tmp_path / "out") == {"operations.csv"}


async def test_export_that_ended_after_the_check_of_another_one_stays_known(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        planned = plan(tmp_path, "csv", only=("passes",))
        await write(harness, tmp_path, "operations")
        await harness.database.read(lambda c: work(c, planned))
        assert manifested(tmp_path) == {"passes.csv", "operations.csv"}
        await write(harness, tmp_path, *TWO)


async def test_foreign_file_that_appears_after_the_check_is_left_alone(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        planned = plan(tmp_path, "csv", only=("passes",))
        (tmp_path / "passes.csv").write_text("mine")
        with pytest.raises(UsageError, match=r"passes\.csv, which syncd did not write"):
            await harness.database.read(lambda c: work(c, planned))
        assert (tmp_path / "passes.csv").read_text() == "mine"
