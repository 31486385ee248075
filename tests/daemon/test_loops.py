"""The pauses of the daemon's loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import LogCapture

from syncd.daemon.loops import Daemon, Intervals
from syncd.rules.retry import Backoff
from syncd.status.watchdog import Watchdog
from tests.helpers.logs import capturing_logger
from tests.helpers.virtual_clock import VirtualClock


class EnoughError(Exception):
    """Ends a loop."""


class PauseClock(VirtualClock):
    """A clock that ends the loop at its first pause, and keeps how long that was to be."""

    pause = 0.0

    async def sleep(self, seconds: float) -> None:
        self.pause = seconds
        raise EnoughError


@pytest.mark.parametrize(("queries", "pause"), [(0.001, 0.5), (0.05, 1.0), (60.0, 5.0)])
async def test_pause_after_a_round_of_reconciling_grows_with_its_queries(queries: float, pause: float) -> None:
    async def run() -> int:
        return 0

    clock = PauseClock()
    flows = SimpleNamespace(
        clock=clock, watchdog=Watchdog(clock, 10), reconcile=SimpleNamespace(run=run, query_seconds=queries)
    )
    intervals = Intervals(pass_interval=300, reconcile_interval=300, shutdown_grace=20, backoff=Backoff(1.0, 60.0))
    daemon = Daemon(flows=cast("Any", flows), log=capturing_logger(LogCapture()), intervals=intervals)
    with pytest.raises(EnoughError):
        await daemon._reconcile()
    assert clock.pause == pause
