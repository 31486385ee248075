"""Reading text that other programs wrote: SQLite stores any bytes as TEXT, and one bad row must cost only itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy import Connection


@contextmanager
def lossy_text(connection: Connection) -> Iterator[None]:
    """Read bytes that are not UTF-8 as lone surrogates instead of failing the whole statement.

    Nothing with a lone surrogate in it can be sent or stored, so such a row fails by itself later on. For statements
    with few rows: the decoder is a Python function, so the path of the pages does without.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    before = driver.text_factory
    driver.text_factory = _decode
    try:
        yield
    finally:
        driver.text_factory = before


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def text_value(connection: Connection, text: str) -> sa.ColumnElement[str]:
    """Return text as a parameter of a statement, also when it was read leniently."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "surrogateescape")
        if connection.dialect.name == "sqlite":
            return sa.cast(sa.literal(raw, sa.LargeBinary), sa.Text)
        raise
    return sa.literal(text, sa.Text)
