"""The composition root: what one flow learns reaches the others."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import LogCapture

from syncd.app import open_flows
from syncd.push.outage import DISTINCT
from syncd.records.ids import OperationId
from syncd.sandbox import Sandbox, serve
from syncd.settings import load
from tests.helpers.logs import capturing_logger


async def test_mirrored_page_shows_the_queue_that_albert_answers(tmp_path: Path) -> None:
    sandbox = Sandbox(3)
    async with serve(sandbox):
        given = {
            "ALBERT_BASE_URL": sandbox.url, "ALBERT_TOKEN": sandbox.token,
            "SYNCD_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'syncd.db'}",
        }  # fmt: skip
        log = capturing_logger(LogCapture())
        counts: list[int] = []
        async with open_flows(
            load(given).settings,
            command="test",
            log=log,
            busy_timeout=5,
            on_page=lambda now: counts.append(now["seen"]),
        ) as flows:
            outage = flows.push._brake._outage
            moment = flows.clock.monotonic()
            verdicts = [outage.note_failure(OperationId(operation), moment) for operation in range(DISTINCT)]
            assert verdicts[-1].is_outage, "nothing has got an answer from Albert yet"
            assert (await flows.pull.run()).state == "complete"
            assert not outage.note_failure(OperationId(DISTINCT), flows.clock.monotonic()).is_outage
        assert counts[-1] == 3
