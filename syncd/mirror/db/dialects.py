"""What differs between the databases in the statements that are handed to the driver as they are.

Such statements are written once, in SQLite's words: `?` for a parameter, `json_each(?)` for a list (of numbers after
`key IN`), times as the text of `clock.utc_text`. On PostgreSQL they are said in its words on their way out
(`postgres.engine` hangs `translate` in), and a codec on each connection lets times and JSON pass as the same text that
SQLite keeps. The few statements that must be different, or that one round trip for a whole page pays for, are in
`bulk.py`.
"""

from __future__ import annotations

import functools
import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from syncd.clock import read_utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

EARLIEST, LATEST = "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"
"""What `-infinity` and `infinity`, and times before and after what Python has, are read as."""
_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - UTC, as all of them are
_MICROSECOND = timedelta(microseconds=1)


class ConcurrentChangeError(Exception):
    """Another replica changed what this transaction had read: it must run again, as a whole."""


@functools.lru_cache(maxsize=256)
def translate(statement: str) -> str:
    """Say a statement that is written for SQLite's driver in PostgreSQL's words."""
    numbers = itertools.count(1)
    numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", statement)
    json_columns = re.sub(r"json_each\((\$\d+)\)", r"jsonb_array_elements_text(\1::text::jsonb)", numbered)
    return json_columns.replace("key IN (SELECT value FROM jsonb", "key IN (SELECT value::bigint FROM jsonb")


def json_columns(first: int, *names: str) -> str:
    """Write the parameters from `first` on, each a list in JSON, as the columns of a table of text, on PostgreSQL.

    asyncpg looks at every value of an array from Python, which costs as much as all the rest of a page's statement; a
    list in JSON is one text to it. PostgreSQL expects a hundred rows, and would rather read a table of some thousands
    as a whole: where rows of a big table are looked for, their keys are also given as an array (`= ANY`), which it
    expects to be short, or each is looked for by itself (LATERAL with OFFSET 0, which is no join).
    """
    lists = (f"json_array_elements_text(${number}::text::json)" for number in range(first, first + len(names)))
    return f"ROWS FROM ({', '.join(lists)}) AS r({', '.join(names)})"


def as_lists(columns: Iterable[Sequence[Any]]) -> list[str]:
    """Write columns as `json_columns` reads them."""
    return [msgspec.json.encode(column).decode() for column in columns]


def read_time(value: tuple[int]) -> str:
    """Bring a `timestamptz`, which travels as microseconds since 2000 and has no zone, to `clock.utc_text`'s form."""
    try:
        return (_EPOCH + timedelta(microseconds=value[0])).isoformat(timespec="microseconds") + "Z"
    except OverflowError:
        return EARLIEST if value[0] < 0 else LATEST


def write_time(value: str | datetime) -> tuple[int]:
    """Say a time as `read_time` reads it."""
    moment = read_utc_text(value) if isinstance(value, str) else value.astimezone(UTC)
    return ((moment.replace(tzinfo=None) - _EPOCH) // _MICROSECOND,)


def is_postgresql(connection: Connection) -> bool:
    """Whether a connection speaks to PostgreSQL."""
    return connection.dialect.name == "postgresql"
