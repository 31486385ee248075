"""Moves a mirror with its history and its queue between databases, verified. `syncd migrate-store` calls it.

::

    make ready ─► copy, in the order of keys ─► compare ─────────► mark the source ─► read the ────► finish the target
    the target     each chunk is one             counts and hashes,  as moved           source again    a daemon may
    is marked as   transaction; after a kill     table by table                                         open it
    half moved     the move continues here

The source is read in one snapshot, and again in its current state after it was marked, when commands refuse to write
there: a row that was added, changed or removed meanwhile fails the move. Rows that an interrupted move copied and that
changed since are found by the comparison, and their tables are copied again.

The source is marked before the target is released, and its mark is removed only if the target is certainly not
released, so that no moment exists at which both act.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import sqlalchemy as sa

from syncd.errors import DatabaseMovedError, SyncdError
from syncd.mirror.copy import move_target, refused_rows
from syncd.mirror.copy.checksum import Checksum
from syncd.mirror.copy.move_target import TABLES
from syncd.mirror.db.backends import backend_of
from syncd.mirror.db.database import Database
from syncd.mirror.db.dialects import PerDialect
from syncd.mirror.db.retries import classify_error
from syncd.mirror.schema import migrate
from syncd.mirror.schema.tables import metadata, mirror_identity
from syncd.mirror.schema.types import JsonText, UtcDateTime
from syncd.mirror.store import identity, initial_load

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

CHUNK = 1000
"""Rows that are in memory, and in one transaction of the target."""
READINGS = 4
"""Times that each row is read: to copy it, to compare it on both sides, and to see that it has not changed."""
_SNAPSHOT = PerDialect[dict[str, Any]](
    sqlite={}, postgresql={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
)
"""The options of a connection that sees all tables at one moment; a transaction of SQLite does so by default."""
_BYTE_ORDER = PerDialect[str | None](sqlite=None, postgresql="C")
"""The collation that orders texts by their bytes, which is the default of SQLite."""
_MARKS = (mirror_identity.c.moved_to, mirror_identity.c.moved_at)
"""Columns that describe the source and are not moved."""
_SAYS_MORE = sa.or_(
    *(column.is_not(None) for column in mirror_identity.c if column.name != "id" and column not in _MARKS)
)
"""Whether the identity has more than marks: a row that only the mark of this move made is not compared."""

_OF_OTHER_PROGRAMS = frozenset({"operations", "source_sessions"})
"""Tables into which any program may insert rows."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A table that was moved: its rows, and the sum of their hashes on both sides."""

    table: str
    rows: int
    digest: str


async def move(
    source: sa.URL,
    target: sa.URL,
    *,
    now: datetime,
    force: bool = False,
    on_rows: Callable[[int, int], None] | None = None,
) -> list[Moved]:
    """Copy every table of one database into an empty one, and mark the source as moved.

    Returns no tables if that move is complete already: the process was killed just after its last step.

    Parameters
    ----------
    target : sqlalchemy.URL
        An empty database, or one that an interrupted move of the same source left.
    now : datetime
        The time of the mark.
    force : bool
        Move a database although it was moved to another one before.
    on_rows : Callable[[int, int], None] | None
        Called with the number of rows that are done, and of all; each row counts `READINGS` times.

    Raises
    ------
    DatabaseMovedError
        The source was moved to another database before.
    DatabaseUnusableError
        The source is not at head, the target is not empty, or one of them cannot be used.
    SyncdError
        The target cannot hold a row, or differs from the source, or the source was written to meanwhile; or the last
        step may be done or not, because its answer was lost.
    """
    here, there = backend_of(source).engine(write=False), backend_of(target).engine(write=True)
    try:
        async with _snapshot(here) as first:
            moved_to = await first.run_sync(partial(_require_movable, address=address(target), force=force))
        async with there.begin() as connection:
            if moved_to == address(target) and await connection.run_sync(move_target.is_complete):
                return []
            resumed = await connection.run_sync(move_target.make_ready)
        async with Database(source) as database:
            await database.write(identity.read)  # sets WAL mode, without which a snapshot blocks the mark
            async with _snapshot(here) as snapshot:
                total = await snapshot.run_sync(_count_all)
                moving = _Move(here, snapshot, there, total, on_rows)
                moved = await moving.copy_and_compare(resumed=resumed)
                async with _marked(database, address(target), now, moving):
                    await moving.require_unchanged(moved)
                    await moving.finish()
            return moved
    except Exception as error:
        reason = classify_error(error)
        if reason is None or reason is error:
            raise
        raise reason from error
    finally:
        await here.dispose()
        await there.dispose()


def address(url: sa.URL) -> str:
    """Return a database's URL for messages and for the mark of a move: absolute, and without a password."""
    file = backend_of(url).file
    url = url if file is None else url.set(database=os.path.realpath(file))
    return url.set(password=None).render_as_string()


@asynccontextmanager
async def _marked(database: Database, target: str, now: datetime, moving: _Move) -> AsyncIterator[None]:
    """Mark the source as moved; remove the mark if the block fails and the target is not released."""
    await database.write(partial(identity.mark_moved, target=target, now=now))
    try:
        yield
    except BaseException:
        if not moving.may_be_released:
            with anyio.CancelScope(shield=True):
                await database.write(identity.unmark_moved)
        raise


def _require_movable(connection: Connection, *, address: str, force: bool) -> str | None:
    """Refuse a source that was moved to another address; return where it was moved to."""
    migrate.require_head(connection)
    moved_to = identity.read(connection).moved_to
    if moved_to not in {None, address} and not force:
        raise DatabaseMovedError(
            f"this database was moved to {moved_to} before; move that one, or use --force to move this one again"
        )
    return moved_to


@asynccontextmanager
async def _snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a connection that sees all tables at one moment, until it is closed."""
    async with engine.connect() as connection:
        await connection.execution_options(**_SNAPSHOT.on(connection))
        async with connection.begin():
            yield connection


def _count_all(connection: Connection) -> int:
    return sum(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in TABLES)


def _keys(table: sa.Table, connection: Connection) -> list[sa.ColumnElement[Any]]:
    """Return a table's key in the order of bytes, which is the same on both databases."""
    collation = _BYTE_ORDER.on(connection)

    def ordered(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        return column.collate(collation) if collation and isinstance(column.type, sa.Text) else column

    return [ordered(column) for column in table.primary_key.columns]


def _last_key(connection: Connection, table: sa.Table) -> tuple[Any, ...] | None:
    query = sa.select(*table.primary_key.columns).order_by(*(key.desc() for key in _keys(table, connection))).limit(1)
    row = connection.execute(query).first()
    return None if row is None else tuple(row)


def _select(table: sa.Table) -> sa.Select[Any]:
    """Select the stored form of a table: times and JSON as text, and no mark of a move."""

    def stored(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        if column in _MARKS:
            return sa.null().label(column.name)
        as_text = isinstance(column.type, UtcDateTime) or column.type is JsonText
        return sa.type_coerce(column, sa.Text) if as_text else column

    query = sa.select(*map(stored, table.columns))
    return query.where(_SAYS_MORE) if table is mirror_identity else query


def _rows_after(connection: Connection, table: sa.Table, last: tuple[Any, ...] | None) -> sa.Select[Any]:
    """Select the rows after a key, in the order of keys; all rows if the key is None."""
    keys = _keys(table, connection)
    query = _select(table).order_by(*keys)
    return query if last is None else query.where(sa.tuple_(*keys) > last)


@dataclass
class _Move:
    here: AsyncEngine
    snapshot: AsyncConnection
    there: AsyncEngine
    rows: int
    on_rows: Callable[[int, int], None] | None
    done: int = 0
    may_be_released: bool = False
    """Whether a daemon may open the target, as far as this process knows."""

    async def copy_and_compare(self, *, resumed: bool) -> list[Moved]:
        """Copy all tables and compare them; tables that differ after an interruption are copied again, once.

        Raises
        ------
        SyncdError
            A table differs, or cannot be copied.
        """
        for table in TABLES:
            await self._copy(table)
        async with _snapshot(self.there) as target:
            moved, different = await self._compare(target)
        if not different:
            return moved
        if not resumed:
            raise SyncdError(different[0][1])
        async with self.there.begin() as target:
            for table, _ in different:
                await target.execute(sa.delete(table))
        self.done = 0
        return await self.copy_and_compare(resumed=False)

    async def finish(self) -> None:
        """Release the target for daemons.

        Raises
        ------
        SyncdError
            The answer was lost, and the target cannot be read: it may be released.
        """
        loading = await self.snapshot.run_sync(initial_load.is_loading)
        async with _snapshot(self.here) as source:
            numbers = await source.run_sync(move_target.last_numbers)
        self.may_be_released = True
        try:
            async with self.there.begin() as target:
                await target.run_sync(partial(move_target.finish, link_sources=loading, numbers=numbers))
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                self.may_be_released = await self._is_released(error)
            if not (self.may_be_released and isinstance(error, Exception)):
                raise

    async def _is_released(self, error: BaseException) -> bool:
        """Whether the target is released although the answer to that was an error.

        Raises
        ------
        SyncdError
            The target cannot be read.
        """
        try:
            async with self.there.begin() as target:
                return not await target.run_sync(move_target.is_half_moved)
        except Exception as unreadable:
            raise SyncdError(
                f"the last step of the move may be done or not ({error}), and the target cannot be read "
                f"({unreadable}): the source stays marked as moved; run the same command again"
            ) from unreadable

    async def _copy(self, table: sa.Table) -> None:
        """Copy the rows after the last one that the target has."""
        names = ", ".join(column.name for column in table.columns)
        values = ", ".join("?" for _ in table.columns)
        insert = f"INSERT INTO {table.name} ({names}) VALUES ({values})"  # noqa: S608 - names of the schema
        async with self.there.connect() as target:
            last = await target.run_sync(_last_key, table)
            self._report(await target.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
        query = await self.snapshot.run_sync(_rows_after, table, last)
        async for rows in self._chunks(self.snapshot, table, query):
            await self._insert(table, insert, rows)

    async def _insert(self, table: sa.Table, insert: str, rows: list[tuple[Any, ...]]) -> None:
        """Write rows to the target in one transaction; raises `SyncdError` for a row that it cannot hold."""
        try:
            async with self.there.begin() as target:
                await target.exec_driver_sql(insert, rows)
        except sa.exc.DBAPIError as error:
            if classify_error(error) is not None:
                raise
            raise await refused_rows.refused(self.there, table, insert, rows, error) from error

    async def _compare(self, target: AsyncConnection) -> tuple[list[Moved], list[tuple[sa.Table, str]]]:
        """Read each table on both sides; return all tables, and those that differ with the difference as text."""
        moved, different = [], []
        for table in TABLES:
            read, written = await self._checksum(self.snapshot, table), await self._checksum(target, table)
            moved.append(Moved(table.name, read.rows, read.digest))
            if (read.rows, read.digest) != (written.rows, written.digest):
                text = (
                    f"the move is not complete: {table.name} has {read.rows} rows ({read.digest}) in the source and "
                    f"{written.rows} ({written.digest}) in the target"
                )
                different.append((table, text))
        return moved, different

    async def _checksum(self, connection: AsyncConnection, table: sa.Table) -> Checksum:
        checksum = Checksum(table)
        async for rows in self._chunks(connection, table, _select(table)):
            for row in rows:
                checksum.add(row)
        return checksum

    async def _chunks(
        self, connection: AsyncConnection, table: sa.Table, query: sa.Select[Any]
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query; raises `SyncdError` for a row with text that is not UTF-8."""
        try:
            result = await connection.stream(query.execution_options(yield_per=CHUNK))
            async for partition in result.partitions(CHUNK):
                rows = [tuple(row) for row in partition]
                yield rows
                self._report(len(rows))
        except sa.exc.DBAPIError as error:
            if classify_error(error) is not None:
                raise
            raise await refused_rows.unreadable(self.here, table, _select(table), error) from error

    def _report(self, rows: int) -> None:
        self.done += rows
        if self.on_rows is not None and rows:
            self.on_rows(self.done, READINGS * self.rows)

    async def require_unchanged(self, moved: list[Moved]) -> None:
        """Fail if other programs wrote to the source meanwhile: an operator's decision must not be lost.

        Each table is read in its current state, the largest first, and those of other programs last. Such programs
        insert rows without looking for the mark, and so little time passes between this reading and the end.

        Raises
        ------
        SyncdError
            A table has other rows.
        """
        for expected in sorted(moved, key=lambda content: (content.table in _OF_OTHER_PROGRAMS, -content.rows)):
            async with _snapshot(self.here) as later:
                current = await self._checksum(later, metadata.tables[expected.table])
            if (current.rows, current.digest) != (expected.rows, expected.digest):
                raise SyncdError(
                    f"the source was written to while it was moved (its {expected.table}): stop the programs that "
                    "write there, and run the same command again"
                )
