"""The test environment itself: the flows work together, end to end."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.helpers.harness import open_harness

pytestmark = pytest.mark.both_databases


async def test_mirror_and_server_agree_after_a_pass_a_queue_and_another_pass(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=35) as harness:
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()
        (created,) = await harness.enqueue({"kind": "create", "source_session_id": "s-1", "name": "from the queue"})
        (deleted,) = await harness.enqueue({"kind": "delete", "session_id": "SES3"})
        await harness.push().drain()
        assert (await harness.operation(created))["state"] == "succeeded"
        assert (await harness.operation(deleted))["state"] == "succeeded"
        assert await harness.live() == harness.there()
        assert (await harness.one_pass()).state == "complete"
        assert await harness.reconcile().run() == 0
        assert await harness.live() == harness.there()


async def test_each_database_is_the_one_that_the_world_uses(tmp_path: Path, each_database: str) -> None:
    async with open_harness(tmp_path) as harness:
        assert harness.database.dialect == each_database


async def test_error_of_a_statement_does_not_contain_its_parameters(tmp_path: Path) -> None:
    statement = sa.text("SELECT * FROM no_such_table WHERE name = :name")
    given = {"name": "Contract Smith"}
    async with open_harness(tmp_path) as harness:
        for use in (harness.database.read, harness.database.write):
            with pytest.raises(sa.exc.DBAPIError) as raised:
                await use(lambda c: c.execute(statement, given))
            trace = "".join(traceback.format_exception(raised.value))
            assert "no_such_table" in trace
            assert "Smith" not in trace
