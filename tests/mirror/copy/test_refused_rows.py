"""`syncd migrate-store` names the row that ends a move, and a statement that lets the next one succeed."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.errors import SyncdError
from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite_module import sqlite3
from tests.mirror.copy.test_migrate_store import fill, move

INVALID, NUL = "CAST(X'ff41' AS TEXT)", "CAST(X'410042' AS TEXT)"
"""SQL of a text that is not UTF-8, and of one with a NUL."""


async def execute(url: sa.URL, statement: str) -> None:
    async with Database(url, busy_timeout=5) as database:
        await database.write(lambda c: c.exec_driver_sql(statement))


async def refused(source: sa.URL, target: str, match: str) -> list[str]:
    """Move, and return the statements that the error names."""
    with pytest.raises(SyncdError, match=match) as caught:
        await move(source, sa.make_url(target))
    return re.findall(r": ((?:UPDATE|DELETE) .*?)(?=; )", str(caught.value))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (INVALID, r"source has a row of operations that cannot be read \(id = 2\): it has text that is not UTF-8"),
        (NUL, r"target cannot hold a row of operations \(id = 2\): .*0x00"),
    ],
    ids=["not UTF-8", "nul"],
)
async def test_row_with_text_that_postgresql_cannot_hold_is_named_and_can_be_corrected(
    tmp_path: Path, empty_url: str, text: str, match: str
) -> None:
    source = await fill(tmp_path)
    await execute(source, f"UPDATE operations SET name = {text} WHERE id = 2")
    correct, remove = await refused(source, empty_url, match)
    assert correct == "UPDATE operations SET name = 'TEXT' WHERE id = 2"
    assert remove == "DELETE FROM operations WHERE id = 2"
    await execute(source, correct)
    await move(source, sa.make_url(empty_url))


@pytest.mark.parametrize("text", [INVALID, NUL], ids=["not UTF-8", "nul"])
async def test_row_whose_key_cannot_be_held_is_named_and_can_be_removed(
    tmp_path: Path, empty_url: str, text: str
) -> None:
    source = await fill(tmp_path)
    await execute(source, f"INSERT INTO source_sessions (source_session_id) VALUES ({text})")
    (remove,) = await refused(source, empty_url, "a row of source_sessions")
    assert remove == f"DELETE FROM source_sessions WHERE source_session_id = {text}"
    await execute(source, remove)
    await move(source, sa.make_url(empty_url))


async def test_row_with_a_number_that_postgresql_cannot_hold_is_named(tmp_path: Path, empty_url: str) -> None:
    source = await fill(tmp_path)
    await execute(source, "UPDATE operations SET attempts = 1099511627776 WHERE id = 2")
    (remove,) = await refused(source, empty_url, r"target cannot hold a row of operations \(id = 2\)")
    assert remove == "DELETE FROM operations WHERE id = 2"


async def test_text_that_becomes_invalid_during_the_move_is_named(tmp_path: Path, empty_url: str) -> None:
    source = await fill(tmp_path)

    def spoil(_done: int, _total: int) -> None:
        with closing(sqlite3.connect(str(source.database), isolation_level=None)) as other:
            other.execute(f"UPDATE operations SET name = {INVALID} WHERE id = 1")

    with pytest.raises(SyncdError, match=r"row of operations that cannot be read \(id = 1\)"):
        await move(source, sa.make_url(empty_url), on_rows=spoil)
