"""Power loss: whatever prefix of the WAL is on the disk, it opens and holds every commit acknowledged by then.

SQLite's WAL is a header of 32 bytes and frames of 24 bytes and a page. The file and each prefix of its WAL are copied
aside, cut at every frame and in the middle of frames, with garbage after the cut, and opened.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite import WRITER_PRAGMAS
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import migrate
from syncd.mirror.store import operations

HEADER, FRAME = 32, 24
NOW = datetime(2026, 6, 1, tzinfo=UTC)
CLAIMS = 12


async def _claims(folder: Path) -> list[tuple[int, int]]:
    """Make claims one by one; return the WAL's size when each was acknowledged, and the operation."""
    acknowledged: list[tuple[int, int]] = []
    async with Database.create(sa.make_url(f"sqlite+aiosqlite:///{folder / 'syncd.db'}"), busy_timeout=5) as database:
        await database.write(migrate.migrate)
        rows = [{"kind": "create", "source_session_id": f"s-{n}", "name": "n"} for n in range(CLAIMS)]
        await database.write(lambda c: operations.enqueue(c, rows))
        for _ in range(CLAIMS):
            (operation,) = (
                await database.write(lambda c: operations.claim(c, now=NOW, owner="me", lease=60, limit=1))
            ).operations
            acknowledged.append(((folder / "syncd.db-wal").stat().st_size, operation.id))
        for name in ("syncd.db", "syncd.db-wal"):
            shutil.copy(folder / name, folder / f"kept-{name}")
    return acknowledged


def _opened(folder: Path, main: Path, wal: bytes) -> set[int]:
    """Open the files that the disk held, and return the operations that are claimed in the database."""
    folder.mkdir()
    shutil.copy(main, folder / "syncd.db")
    (folder / "syncd.db-wal").write_bytes(wal)
    with closing(sqlite3.connect(folder / "syncd.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'operations'").fetchone():
            return set()
        return {row[0] for row in connection.execute("SELECT id FROM operations WHERE state = 'running'")}


async def test_every_prefix_of_the_wal_opens_and_keeps_the_claims_acknowledged_by_then(tmp_path: Path) -> None:
    acknowledged = await _claims(tmp_path)
    wal = (tmp_path / "kept-syncd.db-wal").read_bytes()
    main = tmp_path / "kept-syncd.db"
    with closing(sqlite3.connect(main)) as connection:
        page = connection.execute("PRAGMA page_size").fetchone()[0]
    rng = Random(7)  # noqa: S311 - garbage
    cuts = [*range(HEADER, len(wal) + 1, FRAME + page)]
    assert len(cuts) > CLAIMS
    for number, cut in enumerate(cuts):
        whole = {operation_id for size, operation_id in acknowledged if size <= cut}
        torn = cut + rng.randrange(1, FRAME + page)
        for kind, content in (
            ("cut", wal[:cut]),
            ("torn", wal[:torn]),
            ("garbage", wal[:cut] + rng.randbytes(2 * 512)),
            ("zeros", wal[:cut] + bytes(FRAME + page)),
        ):
            kept = _opened(tmp_path / f"{number}-{kind}", main, content)
            assert whole <= kept, (cut, kind)


async def test_writer_is_fully_synchronous(tmp_path: Path) -> None:
    assert "synchronous=FULL" in WRITER_PRAGMAS
    async with Database.create(sa.make_url(f"sqlite+aiosqlite:///{tmp_path / 'syncd.db'}")) as database:
        values = await database.write(
            lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("synchronous", "journal_mode")]
        )
    assert values == [2, "wal"]
