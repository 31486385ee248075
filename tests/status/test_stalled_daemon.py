"""The loops of the daemon and the watchdog: loops that wait are alive, and a loop that hangs is detected."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from syncd.daemon.loops import Daemon, Intervals
from syncd.mirror.db.leader import SingleLeader
from syncd.status.watchdog import Watchdog
from tests.helpers.harness import Harness, open_harness
from tests.helpers.logs import capturing_logger

pytestmark = pytest.mark.both_databases

SLACK = 60.0
"""Far less than the 300 seconds between passes."""


def daemon_of(harness: Harness, watchdog: Watchdog) -> Daemon:
    flows = SimpleNamespace(
        database=harness.database,
        clock=harness.clock,
        pull=harness.pull(),
        push=harness.push(),
        reconcile=harness.reconcile(),
        watchdog=watchdog,
        leadership=SingleLeader(),
    )
    intervals = Intervals(
        pass_interval=300, reconcile_interval=300, shutdown_grace=1, backoff=harness.push_settings.retry_policy.backoff
    )
    return Daemon(flows=cast("Any", flows), log=capturing_logger(harness.log), intervals=intervals)


@pytest.mark.sqlite  # LISTEN waits in real time, not in the clock's
async def test_loops_that_wait_for_a_long_time_are_alive(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness, anyio.create_task_group() as group:
        watchdog = Watchdog(harness.clock, 5)
        daemon = daemon_of(harness, watchdog)
        group.start_soon(daemon._until_cancelled, anyio.CancelScope())
        began, stalled = harness.clock.at, []

        async def minute_is_over() -> bool:
            stalled.extend(watchdog.stalled())
            return (harness.clock.at - began).total_seconds() >= 60

        with anyio.fail_after(30):
            await harness.clock.until(minute_is_over)
        assert stalled == []
        assert set(watchdog._due_at) == {"passes", "reconcile", "watch"}
        group.cancel_scope.cancel()


async def time_stands_still(harness: Harness) -> None:
    with harness.clock.standing_still():
        await anyio.sleep_forever()


@pytest.mark.parametrize("loop", ["passes", "reconcile", "watch", "push"])
async def test_loop_that_hangs_is_detected(tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness(tmp_path) as harness, anyio.create_task_group() as group:
        group.start_soon(time_stands_still, harness)
        watchdog = Watchdog(harness.clock, SLACK)
        daemon = daemon_of(harness, watchdog)
        flow = {"passes": daemon.flows.pull, "reconcile": daemon.flows.reconcile, "push": daemon.flows.push}.get(loop)
        if flow is not None:
            monkeypatch.setattr(flow, "_launch" if loop == "push" else "run", lambda *_: anyio.sleep_forever())
            run = daemon._push if loop == "push" else None
        if loop == "watch":
            watchdog.heartbeat("watch")  # and then never again
        elif run is not None:
            group.start_soon(run, anyio.Event())
        else:
            group.start_soon(daemon._supervise, loop, daemon._passes if loop == "passes" else daemon._reconcile)
        await anyio.wait_all_tasks_blocked()
        assert watchdog.stalled() == []
        harness.clock.forward(SLACK + 1)
        assert watchdog.stalled() == [loop]
        group.cancel_scope.cancel()
