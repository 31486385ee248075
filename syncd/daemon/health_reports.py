"""The reports of a daemon's health, from the moment that it begins to open its database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from syncd.aio import task_group
from syncd.daemon.facts import facts
from syncd.rules.identity import Identity
from syncd.status.health_monitor import HealthMonitor
from syncd.status.notifier import Notifier

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.albert.transport import Transport
    from syncd.albert_session import CurrentSettings
    from syncd.app import Flows
    from syncd.clock import Clock
    from syncd.daemon.systemd import ServiceManager
    from syncd.status.snapshot import Readings, StartReadings

T = TypeVar("T")


@dataclass
class HealthReports:
    """The loop that reads the health, and the loop that sends its changes to SYNCD_NOTIFY_URL."""

    monitor: HealthMonitor
    notifier: Notifier

    @classmethod
    def of_start(
        cls,
        current: CurrentSettings,
        starting: StartReadings,
        transport: Transport,
        manager: ServiceManager,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> HealthReports:
        """Return the loops of a daemon that has not opened its database yet.

        SYNCD_NOTIFY_URL is read for each attempt, so SIGHUP and a changed file take effect.
        """
        notifier = Notifier(
            url=current.secret("syncd_notify_url"),
            facts=lambda: facts(current.settings, Identity()).fields(),
            transport=transport,
            clock=clock,
            log=log,
        )
        monitor = HealthMonitor(
            read=starting.health, clock=clock, log=log, on_change=notifier.notify, on_reading=manager.show_health
        )
        return cls(monitor, notifier)

    async def during(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run both loops until the work ends, and return its result; documents that are not sent yet are kept."""
        async with task_group() as group:
            group.start_soon(self._run, "health", self.monitor.run)
            group.start_soon(self._run, "notifications", self.notifier.run)
            result = await work()
            group.cancel_scope.cancel()
        return result

    async def _run(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop; its failure does not end the start. `daemon.loops` runs it again later."""
        try:
            await loop()
        except Exception:
            self.monitor.log.exception("loop.failed", loop=name)

    def follow(self, current: CurrentSettings, flows: Flows, readings: Readings) -> None:
        """Report the health of open flows from now on, and their tenant."""
        self.monitor.read, self.monitor.clock = readings.health, flows.clock
        self.notifier.facts = lambda: facts(current.settings, flows.tenant.pinned).fields()
