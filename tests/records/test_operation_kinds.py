"""One declaration of each kind of operation: its checks and the constraints of the database agree."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.mirror.store import operations
from syncd.push.kinds import KINDS
from syncd.records.enums import OperationKind
from syncd.records.operation_kinds import CONTENT_COLUMNS, IMPORT_COLUMNS, SPECS, problem
from tests.helpers.harness import open_harness


def test_every_kind_is_declared_and_can_be_run() -> None:
    assert set(SPECS) == set(KINDS) == set(OperationKind)


def test_columns_of_import_files_are_those_of_the_public_interface() -> None:
    assert IMPORT_COLUMNS == ("kind", "source_session_id", "name", "parent_id", "id")


def rows() -> list[dict[str, Any]]:
    values = itertools.product((None, "", "x"), repeat=len(CONTENT_COLUMNS))
    return [
        {"kind": kind.value, **dict(zip(CONTENT_COLUMNS, row, strict=True))} for row in values for kind in OperationKind
    ]


@pytest.mark.both_databases
async def test_checks_of_commands_and_constraints_of_the_database_refuse_the_same_rows(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:

        def accepted(connection: sa.Connection, row: dict[str, Any]) -> bool:
            savepoint = connection.begin_nested()
            try:
                operations.enqueue(connection, [row])
            except sa.exc.IntegrityError:
                savepoint.rollback()
                return False
            savepoint.commit()
            return True

        def work(connection: sa.Connection) -> list[dict[str, Any]]:
            return [row for row in rows() if accepted(connection, row) is not (problem(row) is None)]

        assert await harness.database.write(work) == []


def test_unknown_kind_is_named_with_the_known_ones() -> None:
    assert problem({"kind": "rename"}) == "kind must be create, delete or update, not 'rename'"
