"""The work of `syncd run`: open the flows, serve the status, and run the loops until a signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from syncd.albert_session import CurrentSettings, tls_context
from syncd.app import backoff, logged_retries, open_flows
from syncd.clock import SystemClock
from syncd.daemon.facts import changed_settings, facts, log_database
from syncd.daemon.health_reports import HealthReports
from syncd.daemon.loops import Daemon, Intervals
from syncd.daemon.reload import reload_on_sighup
from syncd.daemon.shutdown import ForcedExit, Received, StopSignals, unless_stopped
from syncd.daemon.status_port import daemon_readings, start_readings, status_port, status_server
from syncd.daemon.systemd import ServiceManager
from syncd.status.metrics import Metrics
from syncd.status.notifier import open_transport
from syncd.status.wal_monitor import WalWatch

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.app import Flows
    from syncd.settings import Loaded, Settings


async def run_daemon(
    read_settings: Callable[[], Loaded],
    loaded: Loaded,
    received: Received,
    log: FilteringBoundLogger,
    *,
    force: bool = False,
) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Parameters
    ----------
    read_settings : Callable[[], Loaded]
        Reads the settings again, for SIGHUP.
    force : bool
        Act on a database although `migrate-store` moved its content to another one.

    Raises
    ------
    UsageError
        The port of the status server is in use.
    TenantMismatchError
        The settings, or a later token, name another tenant than the database mirrors.
    DatabaseUnusableError
        The database is held by another daemon, or cannot be used.
    """
    settings, current, metrics = loaded.settings, CurrentSettings(loaded.settings), Metrics()
    manager, clock = ServiceManager.of_environment(os.environ), SystemClock()
    started_at = clock.now()
    # one iterator from here to the end: a signal is never lost between two
    stops = ForcedExit(StopSignals(received), settings.syncd_shutdown_grace, log)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(status_port(loaded, log))
        transport = await stack.enter_async_context(open_transport(settings.syncd_proxy, tls_context(settings)))
        retries = logged_retries(float("inf"), log)
        opening = open_flows(
            settings,
            command="run",
            log=log,
            retries=retries,
            force=force,
            current=current,
            after_request=metrics.observe_request,
        )
        starting = start_readings(settings, retries, started_at)
        reports = HealthReports.of_start(current, starting, transport, manager, clock, log)

        async def open_and_log() -> Flows:
            flows = await stack.enter_async_context(opening)
            await log_database(flows.database, log)
            return flows

        async with status_server(settings, starting, metrics, None if listener is None else listener.dup()):
            flows = await unless_stopped(stops, lambda: reports.during(open_and_log))
        if isinstance(flows, signal.Signals):
            manager.stopping()
            log.info("daemon.stopped")
            return
        wal = WalWatch(database=flows.database, clock=flows.clock, log=log)
        readings = daemon_readings(settings, flows, wal, started_at)
        stack.push_async_callback(readings.aclose)
        await stack.enter_async_context(status_server(settings, readings, metrics, listener))
        reports.follow(current, flows, readings)
        daemon = Daemon(
            flows=flows,
            log=log,
            intervals=intervals(settings),
            others={
                "wal": lambda: wal.run(flows.watchdog),
                "tenant": flows.tenant.run,
                "settings": lambda: reload_on_sighup(received, read_settings, current, flows, log),
                "health": reports.monitor.run,
                "notifications": reports.notifier.run,
                "service manager": lambda: manager.run(flows.watchdog, flows.clock),
            },
            facts=started(loaded, flows),
            on_start=manager.ready,
            on_stop=manager.stopping,
        )
        await daemon.run(stops)


def started(loaded: Loaded, flows: Flows) -> dict[str, object]:
    """Return the fields of `daemon.started`."""
    return {
        **facts(loaded.settings, flows.tenant.pinned).fields(),
        "database": flows.database.url.render_as_string(hide_password=True),
        "pass_interval": loaded.settings.syncd_pass_interval,
        "settings": changed_settings(loaded),
    }


def intervals(settings: Settings) -> Intervals:
    """Return the daemon's periods."""
    return Intervals(
        pass_interval=settings.syncd_pass_interval,
        reconcile_interval=settings.syncd_reconcile_interval,
        shutdown_grace=settings.syncd_shutdown_grace,
        backoff=backoff(settings),
    )
