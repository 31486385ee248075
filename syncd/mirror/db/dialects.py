"""Two versions of a statement or a function, one for each database, and the translation of statements for PostgreSQL.

`mirror/` uses this module wherever SQLite and PostgreSQL need different text. Both versions are next to each other,
and the connection selects one::

    _NOW = PerDialect(sqlite="SELECT strftime('%s', 'now')", postgresql="SELECT extract(epoch FROM now())")
    raw.execute(connection, _NOW.on(connection))

    touch = by_dialect(sqlite=_touch_rows, postgresql=_touch_page)  # two functions of a connection
    touch(connection, keys)

Most statements need only one version. They are written for SQLite's driver: `?` for a parameter, `json_each(?)` for a
list (of numbers after `key IN`), times as the text of `clock.utc_text`. `translate` rewrites them for PostgreSQL.
`postgresql.engine` calls it for each statement, and a codec on each connection passes times and JSON as the same text
that SQLite stores.

The differences that commands and the composition root need to know are in `backends`.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import msgspec

from syncd.clock import read_utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import sqlalchemy as sa
    from sqlalchemy import Connection, Dialect

UNIQUE_VIOLATION = "23505"
"""PostgreSQL's code for a row that another one excludes."""
P = ParamSpec("P")
T = TypeVar("T")

EARLIEST, LATEST = "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"
"""The texts for `-infinity` and `infinity`, and for times that a `datetime` cannot represent."""
_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - PostgreSQL counts from here, in UTC
_MICROSECOND = timedelta(microseconds=1)


class ConcurrentChangeError(Exception):
    """Another replica changed rows that this transaction had read: the whole transaction must run again."""


def is_of_another_replica(error: sa.exc.IntegrityError) -> bool:
    """Whether a row was refused because another replica inserted one first, and not by a constraint or a trigger.

    SQLite has no other replica.
    """
    return getattr(error.orig, "sqlstate", None) == UNIQUE_VIOLATION


class HasDialect(Protocol):
    """A connection or an engine, async or not."""

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect."""


@dataclass(frozen=True)
class PerDialect(Generic[T]):
    """A value with one version for SQLite and one for PostgreSQL."""

    sqlite: T
    postgresql: T

    def on(self, connection: HasDialect) -> T:
        """Return the version for the database of a connection or an engine."""
        return self.postgresql if connection.dialect.name == "postgresql" else self.sqlite


def by_dialect(
    *, sqlite: Callable[Concatenate[Connection, P], T], postgresql: Callable[Concatenate[Connection, P], T]
) -> Callable[Concatenate[Connection, P], T]:
    """Combine two functions of a connection into one that calls the version for the connection's database."""
    versions = PerDialect(sqlite, postgresql)

    @functools.wraps(sqlite)
    def call(connection: Connection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return versions.on(connection)(connection, *args, **kwargs)

    return call


def do_nothing(_connection: Connection, /) -> None:
    """Do nothing: the version of a function for a database that does not need it."""


@functools.lru_cache(maxsize=256)
def translate(statement: str) -> str:
    """Rewrite a statement for SQLite's driver as one for PostgreSQL."""
    numbers = itertools.count(1)
    numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", statement)
    lists = re.sub(r"json_each\((\$\d+)\)", r"jsonb_array_elements_text(\1::text::jsonb)", numbered)
    return lists.replace("key IN (SELECT value FROM jsonb", "key IN (SELECT value::bigint FROM jsonb")


def json_columns(first: int, *names: str) -> str:
    """Return SQL of a PostgreSQL table `r` of text, made of JSON lists in the parameters from `first` on.

    asyncpg encodes each value of an array in Python, which costs as much as the rest of a page's statement. A JSON list
    is a single text to it. PostgreSQL estimates a hundred rows for such a table, and reads a table of some thousand
    rows as a whole. A statement that searches a large table therefore passes the keys as an array too (`= ANY`), for
    which the estimate is small, or searches each row by itself (LATERAL with OFFSET 0, which is not made a join).
    """
    lists = (f"json_array_elements_text(${number}::text::json)" for number in range(first, first + len(names)))
    return f"ROWS FROM ({', '.join(lists)}) AS r({', '.join(names)})"


def as_lists(columns: Iterable[Sequence[Any]]) -> list[str]:
    """Encode columns as the JSON lists that `json_columns` reads."""
    return [msgspec.json.encode(column).decode() for column in columns]


def read_time(value: tuple[int]) -> str:
    """Return a `timestamptz` as the text of `clock.utc_text`; on the wire it is a number of microseconds since 2000."""
    try:
        return (_EPOCH + timedelta(microseconds=value[0])).isoformat(timespec="microseconds") + "Z"
    except OverflowError:
        return EARLIEST if value[0] < 0 else LATEST


def write_time(value: str | datetime) -> tuple[int]:
    """Return a time in the form that `read_time` reads."""
    moment = read_utc_text(value) if isinstance(value, str) else value.astimezone(UTC)
    return ((moment.replace(tzinfo=None) - _EPOCH) // _MICROSECOND,)
