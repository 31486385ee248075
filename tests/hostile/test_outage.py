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
from tests.helpers.harness import World, world

pytestmark = pytest.mark.both_databases

QUEUED, SOURCES = 200, 100
OUTAGE = 600.0
PASSES = 3  # at 0, 300 and 600 seconds
MANNERS = 1.1


def _daemon(w: World) -> Daemon:
    albert: Any = w.albert
    flows = Flows(
        w.database, albert, w.clock, w.pull(), w.push(), w.reconcile(), albert._session,
        Watchdog(w.clock, 100.0, lambda: False), TenantGuard(named=Identity(), log=w.pull().log),
    )  # fmt: skip
    intervals = Intervals(
        pass_interval=300, reconcile_interval=300, shutdown_grace=1, backoff=w.push_settings.retry_policy.backoff
    )
    return Daemon(flows=flows, log=flows.pull.log, intervals=intervals)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["error_500", "lost_before"])
async def test_outage_of_ten_minutes_causes_few_extra_requests_and_recovery_takes_a_minute(
    tmp_path: Path, kind: str
) -> None:
    async with world(tmp_path, sessions=20) as w:
        w.push_settings = replace(w.push_settings, concurrency=16)
        assert (await w.one_pass()).state == "complete"
        daemon = _daemon(w)
        async with anyio.create_task_group() as group:
            w.sandbox.faults = Faults()
            setattr(w.sandbox.faults, kind, 1.0)
            w.sandbox.requests.clear()
            await w.enqueue(*({"kind": "create", "source_session_id": f"s-{n}", "name": "n"} for n in range(QUEUED)))
            for number in range(SOURCES):
                await w.sql("INSERT INTO source_sessions (source_session_id) VALUES (?)", f"x-{number}")
            for loop in (daemon._passes, daemon._reconcile, daemon.flows.push.run):
                group.start_soon(loop)
            await w.clock.sleep(OUTAGE)
            during = len(w.sandbox.requests)
            w.sandbox.faults = Faults()
            new = w.sandbox.create(source_session_id="others", name="by others")
            await w.clock.sleep(60)
            group.cancel_scope.cancel()
        assert await w.sql("SELECT DISTINCT state FROM operations") == [{"state": "succeeded"}]
        assert await w.live() == w.there()
        assert new["id"] in await w.live()
        states = await w.sql("SELECT DISTINCT state FROM source_sessions WHERE source_session_id LIKE 'x-%'")
        assert states == [{"state": "missing"}]
        assert during <= MANNERS * (QUEUED + SOURCES + PASSES)
