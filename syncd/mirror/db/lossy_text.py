"""Read and compare text that other programs wrote and that is not valid UTF-8.

SQLite stores any bytes as TEXT. One such value must not make a statement over many rows fail. PostgreSQL refuses
invalid text, so nothing is needed there. `mirror/store` uses this module for statements with few rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.db.dialects import by_dialect
from syncd.mirror.db.sqlite_module import decode

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection


@contextmanager
def _surrogates(connection: Connection) -> Iterator[None]:
    driver: Any = connection.connection.driver_connection
    before = driver.text_factory
    driver.text_factory = decode
    try:
        yield
    finally:
        driver.text_factory = before


@contextmanager
def _unchanged(_connection: Connection) -> Iterator[None]:
    yield


_lossy_text = by_dialect(sqlite=_surrogates, postgresql=_unchanged)


def lossy_text(connection: Connection) -> AbstractContextManager[None]:
    """Read invalid UTF-8 as lone surrogates while the context lasts, instead of failing the statement.

    A text with a lone surrogate can neither be sent nor stored, so its row fails later, by itself. The decoder is a
    Python function: statements that read a page's rows do not use it.
    """
    return _lossy_text(connection)


def _bytes_as_text(_connection: Connection, text: str) -> sa.ColumnElement[str]:
    raw = text.encode("utf-8", "surrogateescape")
    return sa.cast(sa.literal(raw, sa.LargeBinary), sa.Text)


def _text(_connection: Connection, text: str) -> sa.ColumnElement[str]:
    return sa.literal(text, sa.Text)


_invalid_text = by_dialect(sqlite=_bytes_as_text, postgresql=_text)


def text_value(connection: Connection, text: str) -> sa.ColumnElement[str]:
    """Return text as a parameter of a statement, also if it was read with `lossy_text`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _invalid_text(connection, text)
    return sa.literal(text, sa.Text)
