"""The reports of the health from the start on: one notification for a wait at the start, and one for its end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
from pydantic import SecretStr
from structlog.testing import LogCapture

from syncd.albert_session import CurrentSettings
from syncd.daemon.health_reports import HealthReports
from syncd.daemon.status_port import start_readings
from syncd.daemon.systemd import ServiceManager
from syncd.mirror.db.retries import Retries
from syncd.rules.identity import Identity
from syncd.settings import Settings
from syncd.status.notifier import open_transport
from tests.helpers.logs import capturing_logger
from tests.helpers.virtual_clock import VirtualClock
from tests.processes.test_systemd import listening
from tests.status.test_health_monitor import State
from tests.status.test_notifier import receiving


async def test_wait_for_the_database_at_the_start_is_reported_once_and_so_is_its_end(tmp_path: Path) -> None:
    clock, log, retries = VirtualClock(), LogCapture(), Retries(float("inf"))
    async with receiving() as receiver, open_transport(None, None) as transport:
        settings = Settings(albert_token=SecretStr("t"), syncd_notify_url=SecretStr(receiver.url))
        current = CurrentSettings(settings)
        transport.send = clock.watched(transport.send)  # type: ignore[method-assign, assignment]

        async def received(count: int) -> None:
            async def holds() -> bool:
                return len(receiver.bodies) >= count

            await clock.until(holds)

        async def wait_for_the_database() -> str:
            await clock.sleep(60.0)  # the start does not wait yet
            retries.wait_reason = "database is locked"
            await received(1)
            return "opened"

        with listening(str(tmp_path / "notify")) as systemd:
            manager = ServiceManager(systemd.address)
            reports = HealthReports.of_start(
                current,
                start_readings(settings, retries, clock.now()),
                transport,
                manager,
                clock,
                capturing_logger(log),
            )
            async with anyio.create_task_group() as group:
                group.start_soon(clock.run)
                assert await reports.during(wait_for_the_database) == "opened"
                reports.follow(current, cast("Any", working_flows(clock)), cast("Any", healthy_readings()))
                await reports.during(lambda: received(2))
                group.cancel_scope.cancel()
            assert "is starting" in systemd.values("STATUS")[0]
            assert systemd.values("STATUS")[-1] == "healthy"
    waiting, working = receiver.bodies
    assert [entry["code"] for entry in waiting["problems"]] == ["database_unreadable", "database_waiting"]
    assert (waiting["healthy"], waiting["tenant"]) == (False, "unknown")
    assert (working["healthy"], working["tenant"], working["problems"]) == (True, "TEN1", [])
    assert [entry["healthy"] for entry in log.entries if entry["event"] == "health.changed"] == [False, True]


def working_flows(clock: VirtualClock) -> SimpleNamespace:
    return SimpleNamespace(clock=clock, tenant=SimpleNamespace(pinned=Identity("https://albert.example", "TEN1")))


def healthy_readings() -> SimpleNamespace:
    async def health() -> State:
        return State(())

    return SimpleNamespace(health=health)
