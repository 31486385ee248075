"""The port and the status server of `syncd run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from socket import gethostname
from typing import TYPE_CHECKING

from syncd.errors import UsageError
from syncd.opening import database_backend
from syncd.status.server import listen, serve
from syncd.status.snapshot import DaemonIdentity, Readings
from syncd.urls import origin, shown_database
from syncd.version import program_version

if TYPE_CHECKING:
    from socket import socket

    from structlog.typing import FilteringBoundLogger

    from syncd.app import Flows
    from syncd.settings import Loaded, Settings
    from syncd.status.metrics import Metrics
    from syncd.status.wal_monitor import WalWatch


@contextmanager
def status_port(loaded: Loaded, log: FilteringBoundLogger) -> Iterator[socket | None]:
    """Bind the port of the status server before anything is contacted; gives None if there is no server.

    A port that the settings name must be free. If the default port is in use, the mirror works without a server.

    Raises
    ------
    UsageError
        The named port is in use.
    DatabaseUnusableError
        It is in use, and another daemon holds the database: that daemon has the port, most likely.
    """
    settings = loaded.settings
    if settings.syncd_status_port == 0:
        yield None
        return
    try:
        listener = listen(settings.syncd_status_host, settings.syncd_status_port)
    except UsageError as error:
        if loaded.origins["syncd_status_port"] != "default":
            database_backend(settings).require_free()
            raise
        log.warning("status.unavailable", error=str(error), hint="set SYNCD_STATUS_PORT")
        yield None
        return
    with listener:
        yield listener


def daemon_readings(settings: Settings, flows: Flows, wal: WalWatch) -> Readings:
    """Return the readings of a running daemon, for the status server and the health monitor."""
    return Readings(
        database=flows.database,
        clock=flows.clock,
        watchdog=flows.watchdog,
        wal=wal,
        refused=lambda: flows.session.refused or flows.push.refused is not None,
        unreachable=flows.unreachable,
        pass_interval=settings.syncd_pass_interval,
        identity=identity_of(settings, flows),
    )


def status_server(
    settings: Settings, readings: Readings, metrics: Metrics, listener: socket, log: FilteringBoundLogger
) -> AbstractAsyncContextManager[str]:
    """Serve the status of the flows on a bound port while the context lasts."""
    return serve(readings, metrics, listener, settings.syncd_status_host, log)


def identity_of(settings: Settings, flows: Flows) -> DaemonIdentity:
    """Return what tells this daemon from others."""
    return DaemonIdentity(
        version=program_version(),
        origin=origin(settings.albert_base_url),
        tenant=lambda: flows.tenant.pinned.tenant_id,
        host=gethostname(),
        database=shown_database(settings.syncd_database_url.get_secret_value()),
        started_at=flows.clock.now(),
        leads=lambda: flows.leadership.leads,
    )
