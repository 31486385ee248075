"""The dry run of an import: an operation in the queue or in an earlier row changes the outcome of later rows."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.files import imports
from syncd.mirror.store import import_plan
from tests.helpers.harness import Harness, open_harness

pytestmark = pytest.mark.both_databases

BY_ID, BY_SOURCE = {"id": "SES1"}, {"source_session_id": "s"}
GONE = "an earlier operation deletes it"
QUEUED = "queued already"


def delete(by: dict[str, str]) -> dict[str, Any]:
    return {"kind": "delete", **by}


def update(by: dict[str, str], name: str) -> dict[str, Any]:
    return {"kind": "update", **by, "name": name}


def create(source: str, name: str, folder: str | None = None) -> dict[str, Any]:
    return {"kind": "create", "source_session_id": source, "name": name, "parent_id": folder}


async def planned(harness: Harness, operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    asked = imports.read_operations(io.StringIO("".join(json.dumps(each) + "\n" for each in operations)))
    return await harness.database.read(lambda c: import_plan.plan(c, asked))


CASES = [
    (delete(BY_ID), create("s", "n"), "created", None),
    (delete(BY_SOURCE), update(BY_ID, "m"), "absent", GONE),
    (delete(BY_ID), update(BY_SOURCE, "m"), "absent", GONE),
    (delete(BY_ID), delete(BY_SOURCE), "absent", GONE),
    (delete(BY_SOURCE), delete(BY_ID), "absent", GONE),
    (update(BY_SOURCE, "m"), create("s", "n"), "adopted", "name is 'm' and not 'n'"),
    (update(BY_ID, "m"), create("s", "m"), "there", QUEUED),
    (update(BY_ID, "m"), update(BY_SOURCE, "m"), "there", QUEUED),
    (update(BY_ID, "m"), update(BY_SOURCE, "n"), "updated", "name is 'm' and not 'n'"),
    (create("s", "n"), create("s", "n"), "there", None),
    (create("new", "A"), create("new", "B"), "adopted", "name is 'A' and not 'B'"),
    (create("new", "A"), create("new", "A", "FOL1"), "adopted", "folder is None and not 'FOL1'"),
    (create("new", "A"), create("new", "A"), "there", QUEUED),
    (create("new", "A"), update({"source_session_id": "new"}, "B"), "updated", "name is 'A' and not 'B'"),
    (create("new", "A"), delete({"source_session_id": "new"}), "deleted", None),
]


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(("first", "second", "outcome", "note"), CASES)
@pytest.mark.parametrize("queued", [False, True], ids=["in the file", "in the queue"])
async def test_dry_run_follows_a_session_through_earlier_operations(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], outcome: str, note: str | None, *, queued: bool
) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="s", name="n", id="SES1")
        await harness.one_pass()
        if queued:
            await harness.enqueue({"session_id" if key == "id" else key: value for key, value in first.items()})
        row = (await planned(harness, [second] if queued else [first, second]))[-1]
        assert (row["outcome"], row["note"]) == (outcome, note)


async def test_dry_run_gives_a_session_that_is_created_again_no_earlier_id(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="s", name="n", id="SES1")
        await harness.one_pass()
        rows = [delete(BY_SOURCE), create("s", "n"), update(BY_ID, "m"), update(BY_SOURCE, "m"), delete(BY_SOURCE)]
        outcomes = [(row["outcome"], row["id"]) for row in await planned(harness, rows)]
        assert outcomes == [
            ("deleted", "SES1"), ("created", None), ("absent", "SES1"), ("updated", None), ("deleted", None),
        ]  # fmt: skip


async def test_dry_run_deletes_one_of_two_sessions_with_a_source_id_after_the_other(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        for session_id in ("SES1", "SES2"):
            harness.sandbox.create(source_session_id="s", name="n", id=session_id)
        await harness.one_pass()
        outcomes = [
            (row["outcome"], row["id"]) for row in await planned(harness, [delete(BY_ID), *[delete(BY_SOURCE)] * 2])
        ]
        assert outcomes == [("deleted", "SES1"), ("deleted", "SES2"), ("absent", None)]


async def test_dry_run_takes_the_target_of_a_queued_operation_that_was_resolved(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="s", name="n", id="SES1")
        await harness.one_pass()
        await harness.enqueue(delete(BY_SOURCE) | {"target_session_id": "SES-before"})
        assert [row["outcome"] for row in await planned(harness, [delete(BY_ID)])] == ["deleted"]


async def test_dry_run_reads_the_sessions_and_operations_of_its_rows_in_chunks(tmp_path: Path) -> None:
    statements = list[str]()
    rows = imports.read_operations(io.StringIO("source_session_id,name\n" + "".join(f"s-{n},n\n" for n in range(2500))))

    def work(connection: sa.Connection) -> list[dict[str, Any]]:
        sa.event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        return import_plan.plan(connection, rows)

    async with open_harness(tmp_path) as harness:
        await harness.enqueue(create("s-2400", "m"))
        outcomes = await harness.database.read(work)
    assert [row["line"] for row in outcomes if row["outcome"] != "created"] == [2402]
    selects = [each for each in statements if each.startswith("SELECT")]
    assert len(selects) == 2 * math.ceil(2500 / import_plan.CHUNK)
