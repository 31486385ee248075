"""`syncd run` and `syncd once`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from syncd.cli.common import as_json_option, force_option, print_json, say, takes_settings
from syncd.cli.common import run as run_async
from syncd.cli.doctor import sqlite_version
from syncd.errors import UsageError
from syncd.logs import safe_text
from syncd.status.health import dead_operations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from socket import socket

    import anyio
    from structlog.typing import FilteringBoundLogger

    from syncd.app import Flows
    from syncd.daemon.loops import Intervals
    from syncd.mirror.db.database import Database
    from syncd.settings import Loaded, Settings
    from syncd.status.metrics import Metrics
    from syncd.status.wal_monitor import WalWatch

T = TypeVar("T")
SECONDS_TO_END = 1.0
"""What a daemon gets to end in good order, however short its grace is."""


@click.command(short_help="Run the daemon until SIGTERM or SIGINT.")
@force_option
@takes_settings(credentials=True)
def run(loaded: Loaded, *, force: bool) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    It takes a pass over all sessions every SYNCD_PASS_INTERVAL seconds, keeps the source ids reconciled, and works the
    queue of operations. Logs go to standard output, one JSON object a line (SYNCD_LOG_FORMAT).
    """
    from syncd.app import open_flows
    from syncd.daemon.loops import Daemon
    from syncd.logs import configure
    from syncd.status.metrics import Metrics
    from syncd.status.wal_monitor import WalWatch

    settings = loaded.settings
    log = configure(level=settings.syncd_log_level, style=settings.syncd_log_format)
    metrics = Metrics()

    async def main() -> None:
        # one receiver from here to the end: between two there would be a moment at which a signal kills
        with _signals() as received:
            signals = _ForcedExit(received, settings.syncd_shutdown_grace, log)
            async with AsyncExitStack() as stack:
                listener = stack.enter_context(status_port(loaded, log))
                opening = open_flows(
                    settings,
                    command="run",
                    log=log,
                    busy_timeout=float("inf"),
                    force=force,
                    after_request=metrics.observe_request,
                )
                flows = await _unless_signalled(signals, lambda: stack.enter_async_context(opening))
                if isinstance(flows, int):
                    log.info("daemon.stopped")
                    return
                _tell_database(flows.database, log)
                wal = WalWatch(database=flows.database, clock=flows.clock, log=log)
                if listener is not None:
                    await stack.enter_async_context(_status_server(settings, flows, wal, metrics, listener, log))
                others = {"wal": lambda: wal.run(flows.watchdog), "tenant": flows.tenant.run}
                await Daemon(flows=flows, log=log, intervals=_rhythm(settings), others=others).run(signals)

    run_async(main)


def _rhythm(settings: Settings) -> Intervals:
    from syncd.app import backoff
    from syncd.daemon.loops import Intervals

    return Intervals(
        pass_interval=settings.syncd_pass_interval,
        reconcile_interval=settings.syncd_reconcile_interval,
        shutdown_grace=settings.syncd_shutdown_grace,
        backoff=backoff(settings),
    )


def _tell_database(database: Database, log: FilteringBoundLogger) -> None:
    """Log which database this is, and a SQLite that is known to be unsafe as a warning."""
    shown = database.url.render_as_string(hide_password=True)
    if database.dialect != "sqlite":
        log.info("database.opened", database=shown)
        return
    finding = sqlite_version()
    tell = log.info if finding.verdict == "ok" else log.warning
    tell("database.opened", database=shown, sqlite=finding.detail, hint=finding.mend)


def _signals() -> AbstractContextManager[AsyncIterator[signal.Signals]]:
    """Receive SIGTERM and SIGINT, each of which otherwise ends the process where it stands."""
    import anyio

    return anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT)


class _ForcedExit:
    """Signals as they come; the first of them ends the process when the grace is over, whatever it waits for then.

    A database that hangs would be waited for for minutes. As after a kill, recovery finds what was in flight.
    """

    def __init__(self, signals: AsyncIterator[signal.Signals], grace: float, log: FilteringBoundLogger) -> None:
        self._signals, self._log = signals, log
        self._timer = threading.Timer(max(grace, SECONDS_TO_END), self._end)
        self._timer.daemon = True  # it is no reason to live on

    def __aiter__(self) -> AsyncIterator[signal.Signals]:
        return self

    async def __anext__(self) -> signal.Signals:
        number = await anext(self._signals)
        if not self._timer.is_alive():
            self._timer.start()
        return number

    def _end(self) -> None:
        last = threading.Timer(0.2, os._exit, (0,))  # it may be the log that hangs
        last.daemon = True
        last.start()
        self._log.warning("daemon.stopped", reason="the grace was over, and something still hung")
        os._exit(0)


async def _unless_signalled(signals: AsyncIterator[signal.Signals], work: Callable[[], Awaitable[T]]) -> T | int:
    """Return what the work returns, or the number of the signal that ended it in good order."""
    from syncd.aio import task_group

    outcome: T | None = None
    received: list[int] = []

    async def watch(scope: anyio.CancelScope) -> None:
        async for number in signals:
            received.append(int(number))
            scope.cancel()
            return

    async with task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        outcome = await work()
        group.cancel_scope.cancel()
    return received[0] if received else outcome


@contextmanager
def status_port(loaded: Loaded, log: FilteringBoundLogger) -> Iterator[socket | None]:
    """Have the status server's port, before anything is contacted; None where there is to be no server.

    A port that somebody chose must be had; the default one may be somebody else's, and the mirror goes on without.

    Raises
    ------
    UsageError
        The chosen port cannot be had.
    DatabaseUnusableError
        It cannot, and another daemon holds the database.
    """
    from syncd.mirror.db.daemon_lock import require_free
    from syncd.opening import database_url
    from syncd.status.server import listen

    settings = loaded.settings
    if settings.syncd_status_port == 0:
        yield None
        return
    try:
        listener = listen(settings.syncd_status_host, settings.syncd_status_port)
    except UsageError as error:
        if loaded.origins["syncd_status_port"] != "default":
            url = database_url(settings)
            if url.get_backend_name() == "sqlite":
                require_free(
                    Path(url.database or "")
                )  # it is the daemon of this database that has the port, most likely
            raise
        log.warning("status.unavailable", error=str(error), hint="set SYNCD_STATUS_PORT")
        yield None
        return
    with listener:
        yield listener


def _status_server(
    settings: Settings, flows: Flows, wal: WalWatch, metrics: Metrics, listener: socket, log: FilteringBoundLogger
) -> AbstractAsyncContextManager[str]:
    """Serve the status of the flows on a port."""
    from syncd.status.server import serve
    from syncd.status.snapshot import Readings

    readings = Readings(
        database=flows.database, clock=flows.clock, watchdog=flows.watchdog, wal=wal,
        refused=lambda: flows.session.refused or flows.push.refused is not None,
        pass_interval=settings.syncd_pass_interval,
    )  # fmt: skip
    return serve(readings, metrics, listener, settings.syncd_status_host, log)


@click.command(short_help="Do one cycle to its end, and exit.")
@force_option
@as_json_option
@takes_settings(credentials=True)
@click.pass_context
def once(context: click.Context, loaded: Loaded, *, as_json: bool, force: bool) -> None:
    """Do one cycle to its end: drain the queue as far as it is due, one pass, reconcile; then exit.

    Exits 1 when the pass is not complete, when Albert refuses the credentials, or when an operation is dead.
    """
    from syncd.cli.progress import page_progress
    from syncd.logs import configure

    settings = loaded.settings
    with page_progress() as on_page:
        stream = sys.stderr if as_json else sys.stdout
        log = configure(level=settings.syncd_log_level, style=settings.syncd_log_format, stream=stream)

        async def main() -> dict[str, Any] | int:
            with _signals() as signals:
                return await _unless_signalled(signals, lambda: _once(settings, log, on_page, force=force))

        summary = run_async(main)
    if isinstance(summary, int):
        say("interrupted; the next cycle goes on from here")
        context.exit(128 + summary)
    found = _problems(summary)
    if as_json:
        print_json({**summary, "problems": found})
    else:
        for problem in found:
            say(f"error: {safe_text(problem)}")
    context.exit(1 if found else 0)


def _problems(summary: Mapping[str, Any]) -> list[str]:
    """Say why a cycle was not all well, each with what to do."""
    ended = summary["pass"]
    way = f"see: syncd deletions show {ended['id']}" if ended["state"] == "held" else "run: syncd doctor"
    found = [] if ended["state"] == "complete" else [f"pass {ended['id']} is {ended['state']}: {ended['error']}; {way}"]
    if summary["queue_refused"]:
        found.append(f"the queue rests: {summary['queue_refused']}; run: syncd doctor")
    if dead := summary["operations"]["dead"]:
        found.append(dead_operations(dead))
    if unanswered := summary["sources_unanswered"]:
        found.append(f"{unanswered} source ids got no answer from Albert; the next cycle asks again")
    return found


async def _once(
    settings: Settings,
    log: FilteringBoundLogger,
    on_page: Any,  # noqa: ANN401
    *,
    force: bool,
) -> dict[str, Any]:
    from syncd.app import open_flows
    from syncd.mirror.read import views
    from syncd.mirror.store import operations
    from syncd.opening import COMMAND_BUSY_TIMEOUT

    async with open_flows(
        settings, command="once", log=log, busy_timeout=COMMAND_BUSY_TIMEOUT, force=force, on_page=on_page
    ) as flows:
        await flows.leadership.require()
        await flows.push.drain()
        outcome = await flows.pull.run()
        unanswered = await flows.reconcile.run()
        flows.tenant.require()
        counts: Mapping[str, int] = await flows.database.read(operations.counts)
        row = await flows.database.read(lambda connection: views.one_pass(connection, outcome.pass_id))
        return {
            "pass": {**row, "state": outcome.state, "error": outcome.error},
            "operations": dict(counts),
            "queue_refused": flows.push.refused,
            "sources_unanswered": unanswered,
        }
