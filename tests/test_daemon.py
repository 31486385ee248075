"""The daemon's loops, inside this process."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import structlog

from syncd import daemon
from syncd.daemon import Daemon, Rhythm
from tests.processes.kit import eventually
from tests.world import world


async def test_long_reader_that_makes_the_wal_grow_is_warned_of_once_each_doubling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "WAL_WARNING", 200_000)
    async with world(tmp_path) as w, anyio.create_task_group() as group:
        flows: Any = SimpleNamespace(database=w.database, clock=w.clock, push=w.push())
        log = structlog.wrap_logger(None, processors=[w.log])
        one = Daemon(flows=flows, log=log, rhythm=Rhythm(pass_interval=1, reconcile_interval=1, shutdown_grace=1))
        group.start_soon(one._watch)
        with closing(sqlite3.connect(w.database.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sessions").fetchone()
            warned = 0
            for batch in range(60):
                await w.enqueue(
                    *({"kind": "create", "source_session_id": f"{batch}-{n}", "name": "N" * 500} for n in range(20))
                )
                warned = len(w.named("database.wal_grows"))
            await eventually(lambda: w.named("database.wal_grows"))
            assert w.database.wal_bytes() > 200_000
        assert warned <= 8
        group.cancel_scope.cancel()
