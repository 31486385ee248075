"""Moving a mirror, its history and its queue, between databases: whole and verified, or not at all.

One snapshot of the source is copied in one transaction of the target, and read back there, before it is committed: a
move that is interrupted leaves the target as empty as it was, and is simply begun again. Each table is compared by its
count and by the sum of its rows' hashes, which does not depend on their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from syncd.errors import DatabaseUnusableError, SyncdError
from syncd.mirror import postgres, schema
from syncd.mirror.database import BUSY_SECONDS, READER_PRAGMAS, WRITER_PRAGMAS, prepare_sqlite, translated
from syncd.mirror.tables import JsonText, UtcDateTime, metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

CHUNK = 1000
_MODULUS = 2**128


@dataclass(frozen=True, slots=True)
class Moved:
    """A table that was moved: its rows, and the sum of their hashes on both sides."""

    table: str
    rows: int
    digest: str


class Tally:
    """The count of some rows and the sum of their hashes; the order of the rows does not count."""

    def __init__(self, table: sa.Table) -> None:
        self._json = [place for place, column in enumerate(table.columns) if column.type is JsonText]
        self.rows = 0
        self._sum = 0

    def add(self, row: Sequence[Any]) -> None:
        """Count a row, given as `select` reads it."""
        values = [value.hex() if isinstance(value, bytes) else value for value in row]
        for place in self._json:
            if values[place] != "{}":
                values[place] = _canonical(values[place])
        digest = hashlib.blake2b(json.dumps(values).encode(), digest_size=16).digest()
        self._sum = (self._sum + int.from_bytes(digest)) % _MODULUS
        self.rows += 1

    @property
    def digest(self) -> str:
        """The sum, as text."""
        return f"{self._sum:032x}"


def _canonical(text: str) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON so that what means the same is the same: databases write numbers and the order of keys differently."""
    value = json.loads(text, parse_float=_number, parse_int=_number)
    return json.dumps(value, sort_keys=True)


def _number(text: str) -> str:
    sign, digits, exponent = Decimal(text).as_tuple()
    significant = "".join(map(str, digits)).lstrip("0")
    stripped = significant.rstrip("0")
    if not stripped:
        return "number 0"
    return f"number {'-' * sign}{stripped}e{int(exponent) + len(significant) - len(stripped)}"


async def move(source: sa.URL, target: sa.URL, *, on_rows: Callable[[int, int], None] | None = None) -> list[Moved]:
    """Copy every table of one database into another that is empty.

    Parameters
    ----------
    on_rows : Callable[[int, int], None] | None
        Told how many rows are done and how many there are; each counts twice, once copied and once read back.

    Raises
    ------
    DatabaseUnusableError
        The source is not at head, the target is not empty, or one of them cannot be used.
    SyncdError
        The target cannot hold a row, or does not hold afterwards what the source holds.
    """
    try:
        async with _open(source, write=False) as here, _open(target, write=True) as there:
            await here.run_sync(schema.require_head)
            await there.run_sync(_make_ready)
            total = 2 * await here.run_sync(_count_all)
            return await _Move(here, there, total, on_rows).run()
    except Exception as error:
        reason = translated(error)
        if reason is None or reason is error:
            raise
        raise reason from error


@asynccontextmanager
async def _open(url: sa.URL, *, write: bool) -> AsyncIterator[AsyncConnection]:
    """Open a connection in a transaction: one snapshot of all tables, or all of the writes or none."""
    engine = _engine(url, write=write)
    try:
        async with engine.connect() as connection:
            if not write and url.get_backend_name() == "postgresql":
                await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                yield connection
    finally:
        await engine.dispose()


def _engine(url: sa.URL, *, write: bool) -> AsyncEngine:
    if url.get_backend_name() == "postgresql":
        return postgres.engine(url)
    engine = create_async_engine(url, connect_args={"timeout": BUSY_SECONDS})
    begin = "BEGIN IMMEDIATE" if write else "BEGIN"
    prepare_sqlite(engine.sync_engine, WRITER_PRAGMAS if write else READER_PRAGMAS, begin=begin)
    return engine


def _make_ready(connection: Connection) -> None:
    """Bring an empty target to head, and refuse one that holds anything."""
    schema.migrate(connection)
    full = [
        table.name for table in metadata.sorted_tables if connection.execute(sa.select(1).select_from(table)).first()
    ]
    if full:
        raise DatabaseUnusableError(
            f"the target is not empty: it has rows in {', '.join(full)}; name an empty database"
        )


def _count_all(connection: Connection) -> int:
    return sum(
        connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
    )


def _select(table: sa.Table) -> sa.Select[Any]:
    """Read a table as it is kept: times and JSON as text."""

    def kept(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        as_text = isinstance(column.type, UtcDateTime) or column.type is JsonText
        return sa.type_coerce(column, sa.Text) if as_text else column

    return sa.select(*map(kept, table.columns))


@dataclass
class _Move:
    here: AsyncConnection
    there: AsyncConnection
    total: int
    on_rows: Callable[[int, int], None] | None
    done: int = 0

    async def run(self) -> list[Moved]:
        tables = metadata.sorted_tables
        asleep = await self.there.run_sync(_put_triggers_to_sleep)
        read = {table.name: await self._copy(table) for table in tables}
        await self.there.run_sync(_wake_triggers, asleep)
        await self.there.run_sync(_continue_numbering)
        return [await self._compare(table, read[table.name]) for table in tables]

    async def _copy(self, table: sa.Table) -> Tally:
        names = ", ".join(column.name for column in table.columns)
        marks = ", ".join("?" for _ in table.columns)
        insert = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - names of our own
        tally = Tally(table)
        async for rows in self._chunks(self.here, table, tally):
            try:
                await self.there.exec_driver_sql(insert, rows)
            except sa.exc.DBAPIError as error:
                if translated(error) is not None:
                    raise
                words = f"nothing was moved: the target cannot hold a row of {table.name}: {error.orig}"
                raise SyncdError(words) from error
        return tally

    async def _compare(self, table: sa.Table, read: Tally) -> Moved:
        """Read a table back and compare it with what was read of the source."""
        kept = Tally(table)
        async for _ in self._chunks(self.there, table, kept):
            pass
        if (read.rows, read.digest) != (kept.rows, kept.digest):
            raise SyncdError(
                f"nothing was moved: {table.name} has {read.rows} rows ({read.digest}) in the source "
                f"and {kept.rows} ({kept.digest}) in the target"
            )
        return Moved(table.name, read.rows, read.digest)

    async def _chunks(
        self, connection: AsyncConnection, table: sa.Table, tally: Tally
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        result = await connection.stream(_select(table).execution_options(yield_per=CHUNK))
        async for partition in result.partitions(CHUNK):
            rows = [tuple(row) for row in partition]
            for row in rows:
                tally.add(row)
            yield rows
            self.done += len(rows)
            if self.on_rows is not None:
                self.on_rows(self.done, self.total)


def _put_triggers_to_sleep(connection: Connection) -> list[str]:
    """Keep the triggers from acting on rows that are not new; return the statements that wake them."""
    if connection.dialect.name == "postgresql":
        names = [table.name for table in metadata.sorted_tables]
        for name in names:
            connection.exec_driver_sql(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        return [f"ALTER TABLE {name} ENABLE TRIGGER USER" for name in names]
    found = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
    ).all()
    for name, _ in found:
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    return [row[1] for row in found]


def _wake_triggers(connection: Connection, statements: list[str]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


def _continue_numbering(connection: Connection) -> None:
    """Let PostgreSQL's identity keys go on behind the moved ones; SQLite keeps count by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        for column in table.columns:
            if column.identity is not None:
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'), "  # noqa: S608
                    f"coalesce(max({column.name}), 1), max({column.name}) IS NOT NULL) FROM {table.name}"
                )
