"""Shared parts of the tables: their metadata, the columns of the lists of fields, and partial indexes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from syncd.mirror.schema.types import Boolean, JsonText, Key, Number, UtcDateTime
from syncd.records.fields import EXTRA, FieldList, FieldType

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_CONDITION = "condition"
"""The condition of a partial index, in its `info`."""
_COLUMN_TYPES: dict[FieldType, Any] = {
    FieldType.TEXT: sa.Text(),
    FieldType.NUMBER: Number,
    FieldType.BOOLEAN: Boolean(),
    FieldType.TIME: UtcDateTime(),
    FieldType.JSON: JsonText,
}


def content_columns(fields: FieldList[Any]) -> list[sa.Column[Any]]:
    """Make the columns that hold the content of a record."""
    return [
        sa.Column(
            name,
            _COLUMN_TYPES[field.type],
            nullable=not field.required,
            server_default="{}" if name == EXTRA else None,
            comment=field.wire.comment,
        )
        for name, field in fields.by_column.items()
    ]


def feed_columns() -> list[sa.Column[Any]]:
    """Return the columns that place a version in the change feed."""
    return [
        sa.Column(
            "seq",
            Key,
            nullable=False,
            server_default="0",
            comment="the place of this version among all versions, in the order of commits",
        ),
        sa.Column(
            "changed_fields",
            sa.Text,
            nullable=False,
            server_default="[]",
            comment="JSON list of the columns that this version changed; [] for created and deleted",
        ),
    ]


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    """Make an index of the rows for which a condition is true."""
    condition = sa.text(where)
    index = sa.Index(name, *columns, unique=unique, sqlite_where=condition)
    index.info[_CONDITION] = condition
    return index


def declare_for_postgresql() -> None:
    """Declare the conditions of the partial indexes for PostgreSQL, where Alembic compares tables with a database.

    `postgresql_where` imports SQLAlchemy's dialect of PostgreSQL, which a process with a mirror in SQLite never needs.
    """
    for table in metadata.tables.values():
        for index in table.indexes:
            if _CONDITION in index.info:
                index.dialect_options["postgresql"]["where"] = index.info[_CONDITION]
