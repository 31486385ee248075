"""What `docs/operations.md` says of pruning old rows: syncd goes on as if nothing had happened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.harness import world

pytestmark = pytest.mark.both_databases

PAGE = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text(encoding="utf-8")
SQLITE, POSTGRESQL = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OLD = "2020-01-01T00:00:00.000000Z"


async def test_pruning_of_the_page_takes_what_is_old_and_over_and_leaves_what_syncd_needs(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=60) as w:
        for state in ("complete", "failed", "held"):
            await w.sql(f"INSERT INTO passes (state, started_at, finished_at) VALUES ('{state}', '{OLD}', '{OLD}')")
        await w.one_pass()
        await w.sql(f"UPDATE passes SET finished_at = '{OLD}' WHERE id = 4")  # the newest complete one, however old
        ids = await w.enqueue(*({"kind": "delete", "session_id": f"SES{number}"} for number in range(1, 7)))
        await w.push().drain()
        old = {ids[0]: "succeeded", ids[1]: "cancelled", ids[2]: "dead"}
        for operation, state in old.items():
            await w.sql(f"UPDATE operations SET state = '{state}', finished_at = '{OLD}' WHERE id = {operation}")
        await w.sql(f"UPDATE operations SET state = 'pending', finished_at = NULL WHERE id = {ids[3]}")
        await w.sql("UPDATE operations SET finished_at = '2099-01-01T00:00:00.000000Z' WHERE state = 'succeeded' "
                    f"AND id > {ids[3]}")  # fmt: skip

        for statement in (SQLITE if w.database.dialect == "sqlite" else POSTGRESQL).split(";\n"):
            if statement.strip():
                await w.sql(statement)

        assert [row["id"] for row in await w.sql("SELECT id FROM operations ORDER BY id")] == ids[2:]
        assert [row["id"] for row in await w.sql("SELECT id FROM passes ORDER BY id")] == [3, 4]
        written = await w.sql("SELECT count(*) AS n FROM chat_session_history")
        assert (await w.one_pass()).state == "complete"
        last = await w.last_pass()
        assert (last["id"], last["seen"], last["unchanged"]) == (5, 54, 54)
        assert await w.sql("SELECT count(*) AS n FROM chat_session_history") == written
        (fresh,) = await w.sql("SELECT last_complete_pass_at FROM mirror_freshness")
        assert fresh["last_complete_pass_at"] is not None
        assert len(await w.live()) == 54
