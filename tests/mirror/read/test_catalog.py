"""What the code says of the views and tables is what the database has."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.mirror.read import catalog
from syncd.mirror.schema.types import UtcDateTime
from tests.helpers.harness import open_harness

pytestmark = pytest.mark.both_databases


async def test_every_view_and_table_of_the_database_is_described_column_by_column(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:

        def work(connection: sa.Connection) -> dict[str, dict[str, str]]:
            inspector = sa.inspect(connection)
            names = (*inspector.get_table_names(), *inspector.get_view_names())
            return {
                name: {reflected["name"]: str(reflected["type"]) for reflected in inspector.get_columns(name)}
                for name in names
            }

        columns = await harness.database.read(work)
        described = catalog.VIEWS | catalog.TABLES | catalog.INTERNAL
        del columns["alembic_version"]
        assert columns.keys() == described.keys()
        for name, table in described.items():
            if name in catalog.VIEWS:
                assert list(columns[name]) == table.c.keys(), name
            assert columns[name].keys() == set(table.c.keys()), name  # a later column is the last one of a table
            assert all(column.comment for column in table.c), name
            if harness.database.dialect == "postgresql":
                times = {reflected for reflected, kind in columns[name].items() if kind == "TIMESTAMP"}
                assert times == {column.name for column in table.c if isinstance(column.type, UtcDateTime)}, name


def test_promised_columns_are_columns() -> None:
    for name, promised in catalog.PROMISED.items():
        assert set(promised) <= set(catalog.TABLES[name].c.keys()), name
