"""Moving a mirror, its history and its queue, between databases: verified, and taken up where it was interrupted.

::

    mark the target as half moved ──► copy, chunk by chunk in the order of keys ──► compare ──► unmark
      no daemon opens it any more       each chunk is one transaction; after a        counts and hashes,
                                        kill it goes on behind the last key           table by table

The source is read in one snapshot, and once more, as it is by then, in the end: a row that was added, changed or taken
away meanwhile fails the move. What an interrupted move had copied of a source that has changed since is found by the
comparison, and copied anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.errors import DatabaseUnusableError, SyncdError
from syncd.mirror.copy.checksum import Checksum
from syncd.mirror.db.backends import backend_of
from syncd.mirror.db.dialects import HasDialect, PerDialect, by_dialect, do_nothing
from syncd.mirror.db.retries import classify_error
from syncd.mirror.schema import migrate
from syncd.mirror.schema.tables import metadata, writers
from syncd.mirror.schema.types import JsonText, UtcDateTime
from syncd.mirror.store import initial_load

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

CHUNK = 1000
"""Rows that are in memory, and in one transaction of the target."""
TABLES = tuple(table for table in metadata.sorted_tables if table is not writers)
"""What is moved; who wrote last is a matter of each database."""
_ONE_SNAPSHOT: PerDialect[dict[str, Any]] = PerDialect(
    sqlite={}, postgresql={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
)
"""Options of a connection whose transaction sees one snapshot."""
_BYTE_ORDER: PerDialect[Callable[[sa.Column[Any]], sa.ColumnElement[Any]]] = PerDialect(
    sqlite=lambda column: column, postgresql=lambda column: column.collate("C")
)
READINGS = 4
"""Each row is read four times: to copy it, on both sides to compare it, and to see that it is still so."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A table that was moved: its rows, and the sum of their hashes on both sides."""

    table: str
    rows: int
    digest: str


async def move(source: sa.URL, target: sa.URL, *, on_rows: Callable[[int, int], None] | None = None) -> list[Moved]:
    """Copy every table of one database into another that is empty, or that an interrupted move has left.

    Parameters
    ----------
    on_rows : Callable[[int, int], None] | None
        Told how many rows are done and how many there are; each counts `READINGS` times.

    Raises
    ------
    DatabaseUnusableError
        The source is not at head, the target is not empty, or one of them cannot be used.
    SyncdError
        The target cannot hold a row, or does not hold afterwards what the source holds, or the source was written to
        meanwhile.
    """
    here, there = backend_of(source).engine(write=False), backend_of(target).engine(write=True)
    try:
        async with _snapshot(here) as snapshot:
            await snapshot.run_sync(migrate.require_head)
            async with there.begin() as connection:
                resumed = await connection.run_sync(_make_ready)
            total = await snapshot.run_sync(_count_all)
            return await _Move(here, snapshot, there, total, on_rows).run(resumed=resumed)
    except Exception as error:
        reason = classify_error(error)
        if reason is None or reason is error:
            raise
        raise reason from error
    finally:
        await here.dispose()
        await there.dispose()


@asynccontextmanager
async def _snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a connection that sees all tables as they are now, to its end."""
    async with engine.connect() as connection:
        await connection.execution_options(**_ONE_SNAPSHOT.on(connection))
        async with connection.begin():
            yield connection


def _make_ready(connection: Connection) -> bool:
    """Bring an empty target to head and mark it; return whether an interrupted move is taken up instead.

    Raises
    ------
    DatabaseUnusableError
        The target holds anything else.
    """
    if migrate.is_half_moved(connection):
        return True
    migrate.migrate(connection)
    full = [table.name for table in TABLES if connection.execute(sa.select(1).select_from(table)).first()]
    if full:
        raise DatabaseUnusableError(
            f"the target is not empty: it has rows in {', '.join(full)}; name an empty database"
        )
    migrate.mark_half_moved(connection)
    _put_triggers_to_sleep(connection)
    return False


def _count_all(connection: Connection) -> int:
    return sum(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in TABLES)


def _keys(table: sa.Table, database: HasDialect) -> list[sa.ColumnElement[Any]]:
    """Return a table's key in an order that both databases have: that of the bytes."""
    in_order_of_bytes = _BYTE_ORDER.on(database)
    return [
        in_order_of_bytes(column) if isinstance(column.type, sa.Text) else column
        for column in table.primary_key.columns
    ]


def _last_key(table: sa.Table, database: HasDialect) -> sa.Select[Any]:
    keys = _keys(table, database)
    return sa.select(*table.primary_key.columns).order_by(*(key.desc() for key in keys)).limit(1)


def _select(table: sa.Table) -> sa.Select[Any]:
    """Read a table as it is kept: times and JSON as text."""

    def kept(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        as_text = isinstance(column.type, UtcDateTime) or column.type is JsonText
        return sa.type_coerce(column, sa.Text) if as_text else column

    return sa.select(*map(kept, table.columns))


@dataclass
class _Move:
    here: AsyncEngine
    snapshot: AsyncConnection
    there: AsyncEngine
    rows: int
    on_rows: Callable[[int, int], None] | None
    done: int = 0

    async def run(self, *, resumed: bool) -> list[Moved]:
        """Copy and compare; what was copied before the interruption and is not true any more is copied anew."""
        for table in TABLES:
            await self._copy(table)
        async with _snapshot(self.there) as target:
            moved, different = await self._compare(target)
        if not different:
            await self._require_unchanged(moved)
            await self._finish()
            return moved
        if not resumed:
            raise SyncdError(different[0][1])
        async with self.there.begin() as target:
            for table, _ in different:
                await target.execute(sa.delete(table))
        self.done = 0
        return await self.run(resumed=False)

    async def _copy(self, table: sa.Table) -> None:
        """Copy the rows behind the last one that the target has, in the order of their keys."""
        names = ", ".join(column.name for column in table.columns)
        marks = ", ".join("?" for _ in table.columns)
        insert = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - names of our own
        query = _select(table).order_by(*_keys(table, self.here))
        async with self.there.connect() as target:
            last = (await target.execute(_last_key(table, self.there))).first()
            self._tell(await target.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
        if last is not None:
            query = query.where(sa.tuple_(*_keys(table, self.here)) > tuple(last))
        async for rows in self._chunks(self.snapshot, query):
            try:
                async with self.there.begin() as target:
                    await target.exec_driver_sql(insert, rows)
            except sa.exc.DBAPIError as error:
                if classify_error(error) is not None:
                    raise
                words = f"nothing more was moved: the target cannot hold a row of {table.name}: {error.orig}"
                raise SyncdError(words) from error

    async def _compare(self, target: AsyncConnection) -> tuple[list[Moved], list[tuple[sa.Table, str]]]:
        """Read each table on both sides; return what is the same, and in words what is not."""
        moved, different = [], []
        for table in TABLES:
            read, kept = await self._tally(self.snapshot, table), await self._tally(target, table)
            moved.append(Moved(table.name, read.rows, read.digest))
            if (read.rows, read.digest) != (kept.rows, kept.digest):
                words = (
                    f"the move is not complete: {table.name} has {read.rows} rows ({read.digest}) in the source and "
                    f"{kept.rows} ({kept.digest}) in the target"
                )
                different.append((table, words))
        return moved, different

    async def _tally(self, connection: AsyncConnection, table: sa.Table) -> Checksum:
        checksum = Checksum(table)
        async for rows in self._chunks(connection, _select(table)):
            for row in rows:
                checksum.add(row)
        return checksum

    async def _chunks(self, connection: AsyncConnection, query: sa.Select[Any]) -> AsyncIterator[list[tuple[Any, ...]]]:
        result = await connection.stream(query.execution_options(yield_per=CHUNK))
        async for partition in result.partitions(CHUNK):
            rows = [tuple(row) for row in partition]
            yield rows
            self._tell(len(rows))

    def _tell(self, rows: int) -> None:
        self.done += rows
        if self.on_rows is not None and rows:
            self.on_rows(self.done, READINGS * self.rows)

    async def _require_unchanged(self, moved: list[Moved]) -> None:
        """Notice what others wrote to the source meanwhile: an operator's decision must not stay behind.

        Each table is read as it is when its turn comes, and the largest first: little time is left between the look at
        the small ones, where people's decisions are, and the end.
        """
        for one in sorted(moved, key=lambda one: -one.rows):
            async with _snapshot(self.here) as later:
                now = await self._tally(later, metadata.tables[one.table])
            if (now.rows, now.digest) != (one.rows, one.digest):
                raise SyncdError(
                    f"the source was written to while it was moved (its {one.table}): stop the programs that write "
                    "there, and run the same command again"
                )

    async def _finish(self) -> None:
        """Make a database of it that a daemon may open."""
        loads = await self.snapshot.run_sync(initial_load.is_loading)
        async with self.there.begin() as target:
            await target.run_sync(_wake_triggers)
            await target.run_sync(_continue_numbering)
            if loads:
                await target.run_sync(initial_load.link_all, utc_text(datetime.now(UTC)))
            await target.run_sync(migrate.unmark_half_moved)


def _drop_triggers(connection: Connection) -> None:
    for name in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all():
        connection.exec_driver_sql(f"DROP TRIGGER {name}")


def _disable_triggers(connection: Connection) -> None:
    for table in TABLES:
        connection.exec_driver_sql(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")


_put_triggers_to_sleep = by_dialect(sqlite=_drop_triggers, postgresql=_disable_triggers)
"""Keep the triggers from acting on rows that are not new."""


def _create_triggers(connection: Connection) -> None:
    with migrate.empty_mirror() as pattern:  # a kill may have been since they were dropped
        statements = pattern.exec_driver_sql("SELECT sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid")
        for statement in statements.scalars().all():
            connection.exec_driver_sql(statement)


def _enable_triggers(connection: Connection) -> None:
    for table in TABLES:
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ENABLE TRIGGER USER")


_wake_triggers = by_dialect(sqlite=_create_triggers, postgresql=_enable_triggers)


def _set_sequences(connection: Connection) -> None:
    for table in TABLES:
        for column in table.columns:
            if column.identity is not None:
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'), "  # noqa: S608
                    f"coalesce(max({column.name}), 1), max({column.name}) IS NOT NULL) FROM {table.name}"
                )


_continue_numbering = by_dialect(sqlite=do_nothing, postgresql=_set_sequences)
"""Let PostgreSQL's identity keys continue after the moved ones; SQLite counts by itself."""
