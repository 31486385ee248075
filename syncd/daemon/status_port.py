"""The port and the status server of `syncd run`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from socket import gethostname
from typing import TYPE_CHECKING

from syncd.errors import UsageError
from syncd.opening import database_backend
from syncd.status.server import listen, serve, url_of
from syncd.status.snapshot import DaemonIdentity, Readings, StartReadings
from syncd.urls import origin, shown_database
from syncd.version import program_version

if TYPE_CHECKING:
    from datetime import datetime
    from socket import socket

    from structlog.typing import FilteringBoundLogger

    from syncd.app import Flows
    from syncd.mirror.db.retries import Retries
    from syncd.settings import Loaded, Settings
    from syncd.status.metrics import Metrics
    from syncd.status.snapshot import View
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
        log.info("status.listening", url=url_of(listener))
        yield listener


def daemon_readings(settings: Settings, flows: Flows, wal: WalWatch, started_at: datetime) -> Readings:
    """Return the readings of a running daemon, for the status server and the health monitor."""
    return Readings(
        database=flows.database,
        clock=flows.clock,
        watchdog=flows.watchdog,
        wal=wal,
        refused=lambda: flows.session.refused or flows.push.refused is not None,
        unreachable=flows.unreachable,
        pass_interval=settings.syncd_pass_interval,
        identity=_identity(settings, started_at, lambda: flows.tenant.pinned.tenant_id, lambda: flows.leadership.leads),
    )


def start_readings(settings: Settings, retries: Retries, started_at: datetime) -> StartReadings:
    """Return the readings of a daemon that has not opened its database yet."""
    return StartReadings(_identity(settings, started_at, lambda: None, lambda: False), retries)


def status_server(
    settings: Settings, view: View, metrics: Metrics, listener: socket | None
) -> AbstractAsyncContextManager[None]:
    """Serve a view on a bound port while the context lasts, and close the port; without a port, serve nothing."""
    return nullcontext() if listener is None else serve(view, metrics, listener, settings.syncd_status_host)


def _identity(
    settings: Settings, started_at: datetime, tenant: Callable[[], str | None], leads: Callable[[], bool]
) -> DaemonIdentity:
    return DaemonIdentity(
        version=program_version(),
        origin=origin(settings.albert_base_url),
        tenant=tenant,
        host=gethostname(),
        database=shown_database(settings.syncd_database_url.get_secret_value()),
        started_at=started_at,
        leads=leads,
    )
