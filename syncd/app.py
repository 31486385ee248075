"""The composition root: it turns settings into a database, a client, a clock and the three flows.

`syncd run`, `syncd once`, `syncd demo` and the benchmarks call `open_flows`. `cli/`, `daemon/`, `opening`,
`albert_session` and `tenant` read `Settings` too; the flows and `mirror/` receive values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from syncd.albert import AsyncAlbertSession, ChatFolderCollection, ChatSessionCollection
from syncd.albert_session import CurrentSettings, max_connections, open_session
from syncd.clock import Clock, SystemClock, machine_boot
from syncd.lookups import Lookups
from syncd.mirror.db.database import Database
from syncd.mirror.db.leader import Leadership, SingleLeader
from syncd.mirror.db.retries import Failure, Failures, Retries
from syncd.mirror.store import elapsed
from syncd.opening import database_backend, open_database
from syncd.pull.flow import Pull, PullSettings
from syncd.pull.folders import FolderSettings, MirrorFolders
from syncd.pull.known_tenant import KnownTenant
from syncd.push.flow import Push, PushSettings
from syncd.push.record import RetryPolicy
from syncd.reconcile import Reconcile
from syncd.records.enums import PassState
from syncd.rules.deletion import Guard
from syncd.rules.retry import Backoff
from syncd.status.reachability import Reachability
from syncd.status.watchdog import HeartbeatClock, Watchdog
from syncd.tenant import named_identity
from syncd.tenant_guard import TenantGuard
from syncd.witness import Witness

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.settings import Settings


@dataclass(frozen=True)
class Flows:
    """The three flows, and the objects that they share."""

    database: Database
    albert: ChatSessionCollection
    clock: Clock
    pull: Pull
    push: Push
    reconcile: Reconcile
    session: AsyncAlbertSession
    watchdog: Watchdog
    tenant: TenantGuard
    leadership: Leadership = field(default_factory=SingleLeader)
    folders: MirrorFolders | None = None
    """None if folders are not mirrored."""
    unreachable: Callable[[], str | None] = lambda: None
    """Returns why Albert counts as unreachable; None if it does not."""

    async def mirror_folders(self, pass_state: str) -> None:
        """Mirror the folders after a pass that read the listing of the sessions: held and failed passes write nothing.

        Raises
        ------
        DatabaseUnusableError
            The mirror cannot be used.
        """
        if self.folders is not None and pass_state in {PassState.COMPLETE, PassState.PARTIAL}:
            await self.folders.run()


def backoff(settings: Settings) -> Backoff:
    """Return the waits between attempts."""
    return Backoff(settings.syncd_retry_base, settings.syncd_retry_max)


def pull_settings(settings: Settings) -> PullSettings:
    """Return the limits of a pass."""
    return PullSettings(
        max_pages=settings.syncd_max_pass_pages,
        read_ahead=settings.syncd_read_ahead,
        max_seconds=settings.syncd_max_pass_seconds,
        backoff=backoff(settings),
        guard=Guard(
            grace=settings.syncd_delete_grace,
            confirmations=settings.syncd_delete_confirmations,
            max_count=settings.syncd_delete_max_count,
            max_fraction=settings.syncd_delete_max_fraction,
        ),
        settle=settings.syncd_unknown_settle,
    )


def folder_settings(settings: Settings) -> FolderSettings:
    """Return the limits of a listing of folders."""
    limits = pull_settings(settings)
    return FolderSettings(max_pages=limits.max_pages, backoff=limits.backoff, guard=limits.guard)


def push_settings(settings: Settings) -> PushSettings:
    """Return the settings of the queue."""
    return PushSettings(
        concurrency=settings.syncd_operations_concurrency,
        lease=settings.syncd_lease,
        retry_policy=RetryPolicy(
            max_attempts=settings.syncd_operations_max_attempts,
            backoff=backoff(settings),
            settle=settings.syncd_unknown_settle,
        ),
    )


def longest_silence(settings: Settings) -> float:
    """Return the seconds that a loop may work without a heartbeat.

    That is a few requests, each of which may wait until the rate limit has let all others pass.
    """
    limit = settings.syncd_max_requests_per_second
    queued = max_connections(settings) / limit if limit else 0.0
    return 60.0 + 4 * (settings.syncd_request_timeout + queued)


@asynccontextmanager
async def open_flows(
    settings: Settings,
    *,
    command: str,
    log: FilteringBoundLogger,
    retries: Retries,
    force: bool = False,
    current: CurrentSettings | None = None,
    clock: Clock | None = None,
    on_page: Callable[[Mapping[str, int]], None] | None = None,
    after_request: Callable[[str, int | BaseException, float], None] | None = None,
) -> AsyncIterator[Flows]:
    """Hold the database as a daemon and connect the flows with it.

    Parameters
    ----------
    command : str
        The command's name, for the message that another daemon prints.
    retries : Retries
        How the flows wait for a database that cannot be used: see `logged_retries`.
    force : bool
        Act on a database although `migrate-store` moved its content to another one.
    current : CurrentSettings | None
        Where the session reads its credentials; None if they cannot change.
    on_page : Callable[[Mapping[str, int]], None] | None
        Called with the counts of each page of a pass.
    after_request : Callable[[str, int | BaseException, float], None] | None
        See `AsyncAlbertSession`.

    Raises
    ------
    DatabaseBusyError
        The database could not be used for longer than `retries` waits.
    DatabaseUnusableError
        The database is held by another daemon, was moved, or cannot be used.
    SettingsError
        SYNCD_CA_FILE changed after the settings were read, and has no certificate now.
    TenantMismatchError
        The settings name another tenant than the database mirrors.
    """
    clock = clock or SystemClock()
    reachability = Reachability(clock=clock, log=log, schedule=asyncio.get_running_loop().call_later)

    def observe_request(method: str, ended: int | BaseException, seconds: float) -> None:
        reachability.observe_request(method, ended, seconds)
        if after_request is not None:
            after_request(method, ended, seconds)

    async with AsyncExitStack() as stack:
        leadership = await stack.enter_async_context(database_backend(settings).hold(command, clock, retries))
        tenant = TenantGuard(named=named_identity(settings), log=log, force=force)
        session = await stack.enter_async_context(
            open_session(current or CurrentSettings(settings), clock, observe_request, tenant.check)
        )
        database = await stack.enter_async_context(
            open_database(
                settings,
                make=True,
                retries=retries,
                host_clock=clock,
                inspect=lambda opened: tenant.inspect(opened, session),
                held=True,
            )
        )
        await tenant.start(database)
        await elapsed.continue_clock(database, machine_boot())
        flows = connect_flows(
            settings,
            database=database,
            session=session,
            clock=database.clock,
            log=log,
            leadership=leadership,
            tenant=tenant,
            unreachable=lambda: reachability.unreachable,
            on_page=on_page,
        )
        await flows.push.recover(abandoned=leadership.alone)
        yield flows


def logged_retries(busy_timeout: float, log: FilteringBoundLogger) -> Retries:
    """Return retries that log when a wait for the database begins and ends, and work that fails again and again."""

    def on_wait(reason: str) -> None:
        log.warning("database.waiting", reason=reason, hint="the work continues by itself when this is over")

    def on_resume(seconds: float) -> None:
        log.info("database.resumed", seconds=round(seconds, 3))

    def on_repeated(failure: Failure) -> None:
        log.error(
            "work.failing",
            work=failure.work,
            error=failure.error,
            count=failure.count,
            hint="waiting alone will not help: fix the cause; the work continues by itself then",
        )

    def on_recovered(failure: Failure) -> None:
        log.info("work.recovered", work=failure.work, seconds=round(failure.last - failure.since, 3))

    return Retries(busy_timeout, on_wait, on_resume, Failures(on_repeated, on_recovered))


def connect_flows(
    settings: Settings,
    *,
    database: Database,
    session: AsyncAlbertSession,
    clock: Clock,
    log: FilteringBoundLogger,
    leadership: Leadership,
    tenant: TenantGuard,
    unreachable: Callable[[], str | None],
    on_page: Callable[[Mapping[str, int]], None] | None = None,
) -> Flows:
    """Return the three flows on an open database and an open session."""
    albert = ChatSessionCollection(session=session)
    watchdog = Watchdog(clock, longest_silence(settings), lambda: database.waiting)
    witness = Witness(database=database, albert=albert, clock=clock, log=log)
    lookups = Lookups(albert=albert, clock=clock, witness=witness)
    known_tenant = KnownTenant(database=database, albert=albert, clock=clock)
    tenant.on_token = known_tenant.ask_again
    push = Push(
        database=database,
        lookups=lookups,
        clock=clock,
        log=log,
        settings=push_settings(settings),
        known_tenant=known_tenant,
    )

    def mirrored(counts: Mapping[str, int]) -> None:
        push.note_response()
        if on_page is not None:
            on_page(counts)

    pull_clock = HeartbeatClock(clock, watchdog, "passes")
    pull = Pull(
        database=database,
        lookups=replace(lookups, clock=pull_clock),
        clock=pull_clock,
        log=log,
        settings=pull_settings(settings),
        on_page=mirrored,
    )
    folders = MirrorFolders(
        database=database,
        albert=ChatFolderCollection(session=session),
        clock=pull_clock,
        log=log,
        settings=folder_settings(settings),
    )
    reconcile_clock = HeartbeatClock(clock, watchdog, "reconcile")
    reconcile = Reconcile(
        database=database,
        lookups=replace(lookups, clock=reconcile_clock),
        clock=reconcile_clock,
        log=log,
        settle=settings.syncd_unknown_settle,
        known_tenant=known_tenant,
    )
    return Flows(
        database, albert, clock, pull, push, reconcile, session, watchdog, tenant, leadership,
        folders if settings.syncd_folders else None, unreachable,
    )  # fmt: skip
