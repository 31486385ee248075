"""PostgreSQL under the model: the same schedules, with the rules of replicas.

The model's loop has no sockets and no threads, so the driver runs in a loop of another thread, which the model waits
for: a transaction is one step, as on SQLite. `Database` itself (its commits in doubt, its retries) is not in it; the
tests of `tests/mirror/db` cover it, with a real server that is cut off and killed.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncpg
import sqlalchemy as sa

from syncd.mirror.db import postgresql
from syncd.mirror.db.dialects import read_time, write_time
from syncd.mirror.schema import tables
from syncd.records.tolerant_json import canonical
from tests.model.store import Values


class PostgresStore:
    """One database that every schedule of this process empties first, with a connection for each way to look at it."""

    alone = False

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._engine = postgresql.engine(self.url)
        self._do(self._connect())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _connect(self) -> None:
        self._writer = await self._engine.connect()
        reader = await self._engine.connect()
        self._reader = await reader.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._watcher = await asyncpg.connect(self.url.set(drivername="postgresql").render_as_string())
        for name, how, encoder, decoder in (
            ("timestamptz", "tuple", write_time, read_time),
            ("jsonb", "text", str, lambda text: canonical(document) if (document := json.loads(text)) else "{}"),
        ):
            await self._watcher.set_type_codec(name, schema="pg_catalog", format=how, encoder=encoder, decoder=decoder)

    def begin(self) -> None:
        names = ", ".join(tables.metadata.tables)
        self._do(self._watcher.execute(f"TRUNCATE {names} RESTART IDENTITY"))

    def transact(self, work: Callable[[sa.Connection], None]) -> bool:
        def writes(connection: sa.Connection) -> bool:
            work(connection)
            return bool(connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()::text").scalar())

        return bool(self.write(writes))

    def write(self, work: Any) -> Any:
        return self._do(self._in_transaction(self._writer, work))

    def read(self, work: Any) -> Any:
        return self._do(self._in_transaction(self._reader, work))

    async def _in_transaction(self, connection: Any, work: Any) -> Any:
        async with connection.begin():
            return await connection.run_sync(work)

    def read_inline(self, _statement: str, _parameters: Sequence[Any]) -> list[Values] | None:
        return None  # as `Database.read_inline` does

    def save(self) -> None:
        return None  # the rule of restored copies is the same code on both databases

    def restore(self, _saved: Any) -> None:
        """Restore nothing: there is no copy."""

    def columns(self, table: str) -> tuple[str, ...]:
        statement = self._do(self._watcher.prepare(f"SELECT * FROM {table}"))
        return tuple(attribute.name for attribute in statement.get_attributes())

    def rows(self, statement: str) -> list[Values]:
        return [tuple(row) for row in self._do(self._watcher.fetch(statement))]

    def remove(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        await self._watcher.close()
        await self._writer.close()
        await self._reader.close()
        await self._engine.dispose()
