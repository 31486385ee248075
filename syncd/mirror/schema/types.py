"""The types of the tables' columns on both databases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from syncd.clock import read_stored_time, utc_text


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A moment: `timestamptz` on PostgreSQL, sortable ISO text with `Z` on SQLite; naive values are refused."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Use the native type where there is one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:  # noqa: ANN401, ARG002
        """Return the time as text, on PostgreSQL too (see `dialects`); refuse a time without a zone."""
        return None if value is None else utc_text(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:  # noqa: ANN401, ARG002
        """Return an aware time."""
        return read_stored_time(value)


class utc_now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, as a default for rows that other programs insert."""

    inherit_cache = True
    type = UtcDateTime()


@compiles(utc_now)
def _(_element: utc_now, _compiler: Any, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    return "now()"


@compiles(utc_now, "sqlite")
def _(_element: utc_now, _compiler: Any, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    return "(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')"


def new_id(result: sa.CursorResult[Any]) -> int:
    """Return the id that the database gave to a row that was just inserted."""
    key = result.inserted_primary_key
    return int(key[0]) if key is not None else 0


class _Jsonb(sa.types.UserDefinedType[str]):
    """PostgreSQL's `jsonb`, given and taken as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
        """Return the type's name."""
        return "JSONB"


class Boolean(sa.types.TypeDecorator[bool]):
    """A boolean: `boolean` on PostgreSQL; 0 or 1 on SQLite, whose strict tables have no other type for it."""

    impl = sa.Integer
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Use the native type if there is one."""
        return dialect.type_descriptor(sa.Boolean() if dialect.name == "postgresql" else sa.Integer())

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> bool | None:  # noqa: ANN401, ARG002
        """Return a bool on either database."""
        return None if value is None else bool(value)


Number: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
JsonText = sa.Text().with_variant(_Jsonb(), "postgresql")
Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
