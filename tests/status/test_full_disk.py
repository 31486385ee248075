"""A disk that is nearly full: the write-ahead log must not fill it."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from syncd.mirror.db import sqlite_file
from syncd.mirror.db.sqlite_module import sqlite3
from tests.helpers.harness import open_harness

pytestmark = pytest.mark.sqlite  # SQLite's log and disk


@pytest.mark.parametrize(("low_room", "emptied"), [(0, False), (2**62, True)])
async def test_log_is_emptied_after_each_transaction_only_where_room_is_low(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, low_room: int, *, emptied: bool
) -> None:
    monkeypatch.setattr(sqlite_file, "LOW_ROOM", low_room)
    async with open_harness(tmp_path, sessions=30) as harness:
        await harness.one_pass()
        shutil.copy(tmp_path / "syncd.db", tmp_path / "without_its_log.db")
        with closing(sqlite3.connect(tmp_path / "without_its_log.db")) as copy:
            passes = copy.execute("SELECT state FROM passes").fetchall()
        assert passes == ([("complete",)] if emptied else [])


async def test_low_room_and_a_reader_that_stays_do_not_stop_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "LOW_ROOM", 2**62)
    async with open_harness(tmp_path, sessions=30) as harness:
        with closing(sqlite3.connect(tmp_path / "syncd.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM passes").fetchone()
            assert (await harness.one_pass()).state == "complete"
            assert reader.execute("SELECT count(*) FROM passes").fetchone() == (0,)
        assert await harness.live() == harness.there()
