"""An outage: ten minutes of 5xx cost about one attempt each, and recovery takes a minute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from syncd.app import Flows
from syncd.daemon.loops import Daemon, Intervals
from syncd.rules.identity import Identity
from syncd.sandbox import Faults
from syncd.status.watchdog import Watchdog
from syncd.tenant_guard import TenantGuard
from tests.helpers.harness import Harness, open_harness

pytestmark = pytest.mark.both_databases

QUEUED, SOURCES = 200, 100
OUTAGE = 600.0
PASSES = 3  # at 0, 300 and 600 seconds
MANNERS = 1.1


def _daemon(harness: Harness) -> Daemon:
    albert: Any = harness.albert
    flows = Flows(
        harness.database, albert, harness.clock, harness.pull(), harness.push(), harness.reconcile(), albert._session,
        Watchdog(harness.clock, 100.0, lambda: False), TenantGuard(named=Identity(), log=harness.pull().log),
    )  # fmt: skip
    intervals = Intervals(
        pass_interval=300, reconcile_interval=300, shutdown_grace=1, backoff=harness.push_settings.retry_policy.backoff
    )
    return Daemon(flows=flows, log=flows.pull.log, intervals=intervals)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["error_500", "lost_before"])
async def test_outage_of_ten_minutes_causes_few_extra_requests_and_recovery_takes_a_minute(
    tmp_path: Path, kind: str
) -> None:
    async with open_harness(tmp_path, sessions=20) as harness:
        harness.push_settings = replace(harness.push_settings, concurrency=16)
        assert (await harness.one_pass()).state == "complete"
        daemon = _daemon(harness)
        async with anyio.create_task_group() as group:
            harness.sandbox.faults = Faults()
            setattr(harness.sandbox.faults, kind, 1.0)
            harness.sandbox.requests.clear()
            await harness.enqueue(
                *({"kind": "create", "source_session_id": f"s-{n}", "name": "n"} for n in range(QUEUED))
            )
            for number in range(SOURCES):
                await harness.sql("INSERT INTO source_sessions (source_session_id) VALUES (?)", f"x-{number}")
            for loop in (daemon._passes, daemon._reconcile, daemon.flows.push.run):
                group.start_soon(loop)
            await harness.clock.sleep(OUTAGE)
            during = len(harness.sandbox.requests)
            harness.sandbox.faults = Faults()
            new = harness.sandbox.create(source_session_id="others", name="by others")
            await harness.clock.sleep(60)
            group.cancel_scope.cancel()
        assert await harness.sql("SELECT DISTINCT state FROM operations") == [{"state": "succeeded"}]
        assert await harness.live() == harness.there()
        assert new["id"] in await harness.live()
        states = await harness.sql("SELECT DISTINCT state FROM source_sessions WHERE source_session_id LIKE 'x-%'")
        assert states == [{"state": "missing"}]
        assert during <= MANNERS * (QUEUED + SOURCES + PASSES)
