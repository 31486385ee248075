"""The composition root: settings become a database, a client, a clock and the three flows."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from syncd.aio import RateLimit
from syncd.albert import AlbertClientCredentials, AsyncAlbertSession, ChatSessionCollection
from syncd.clock import Clock, SystemClock
from syncd.lookups import Lookups
from syncd.mirror.db.daemon_lock import daemon_lock
from syncd.mirror.db.database import Database
from syncd.mirror.db.leader import Leadership, SingleLeader, replica
from syncd.opening import database_url, open_database
from syncd.pull.flow import Pull, PullSettings
from syncd.push.flow import Push, PushSettings
from syncd.push.record import RetryPolicy
from syncd.reconcile import Reconcile
from syncd.rules.deletion import Guard
from syncd.rules.retry import Backoff
from syncd.status.watchdog import BeatingClock, Watchdog
from syncd.witness import Witness

if TYPE_CHECKING:
    from pydantic import SecretStr
    from structlog.typing import FilteringBoundLogger

    from syncd.settings import Settings


YOUNG_OBJECTS = 20_000
"""Objects that may be made before the collector looks for cycles among them: a few pages of rows. With its own 700, and
what was imported to walk through each time, it took 8% of the CPU of a first pass."""


@dataclass(frozen=True)
class Flows:
    """The three flows, and what they share."""

    database: Database
    albert: ChatSessionCollection
    clock: Clock
    pull: Pull
    push: Push
    reconcile: Reconcile
    session: AsyncAlbertSession
    watchdog: Watchdog
    leadership: Leadership = field(default_factory=SingleLeader)


def open_session(
    settings: Settings, clock: Clock, after_request: Callable[[str, int | BaseException, float], None] | None = None
) -> AsyncAlbertSession:
    """Make the HTTP session; the token wins over client credentials when both are given.

    A secret that stands in a file is read again when Albert refuses what it said before: mounted ones are rotated.
    """
    token = settings.albert_token
    credentials = None
    if token is None and settings.albert_client_id is not None and settings.albert_client_secret is not None:
        credentials = AlbertClientCredentials(
            id=_rotated(settings, "albert_client_id", settings.albert_client_id),
            secret=_rotated(settings, "albert_client_secret", settings.albert_client_secret),
        )
    limit = settings.syncd_max_requests_per_second
    return AsyncAlbertSession(
        base_url=settings.albert_base_url,
        token=None if token is None else _rotated(settings, "albert_token", token),
        auth_manager=credentials,
        timeout=settings.syncd_request_timeout,
        max_response_bytes=settings.syncd_max_response_bytes,
        max_connections=settings.syncd_operations_concurrency + 20,
        before_request=RateLimit(limit, clock) if limit else None,
        after_request=after_request,
    )


def _rotated(settings: Settings, name: str, value: SecretStr) -> SecretStr | Callable[[], str]:
    """Return a secret, or what reads it anew where it stands in a file."""
    file = settings.file_of(name)
    return value if file is None else lambda: file.read_text(encoding="utf-8")


def backoff(settings: Settings) -> Backoff:
    """Return the waits between tries."""
    return Backoff(settings.syncd_retry_base, settings.syncd_retry_max)


def pull_settings(settings: Settings) -> PullSettings:
    """Return what bounds a pass."""
    return PullSettings(
        max_pages=settings.syncd_max_pass_pages,
        max_seconds=settings.syncd_max_pass_seconds,
        backoff=backoff(settings),
        guard=Guard(
            grace=settings.syncd_delete_grace,
            confirmations=settings.syncd_delete_confirmations,
            max_count=settings.syncd_delete_max_count,
            max_fraction=settings.syncd_delete_max_fraction,
        ),
    )


def push_settings(settings: Settings) -> PushSettings:
    """Return how the queue is worked."""
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
    """Return the seconds that a loop may work without a sign: a few requests, each behind all that waits for a turn."""
    limit = settings.syncd_max_requests_per_second
    queued = (settings.syncd_operations_concurrency + 20) / limit if limit else 0.0
    return 60.0 + 4 * (settings.syncd_request_timeout + queued)


@asynccontextmanager
async def open_flows(
    settings: Settings,
    *,
    command: str,
    log: FilteringBoundLogger,
    busy_timeout: float,
    clock: Clock | None = None,
    on_page: Callable[[Mapping[str, int]], None] | None = None,
    after_request: Callable[[str, int | BaseException, float], None] | None = None,
) -> AsyncIterator[Flows]:
    """Hold the database as its one daemon and put the flows together.

    Raises
    ------
    DatabaseUnusableError
        The database is held by another daemon, or not to be used.
    """
    clock = clock or SystemClock()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    async with AsyncExitStack() as stack:
        url = database_url(settings)
        alone = url.get_backend_name() == "sqlite"
        if alone:
            stack.enter_context(daemon_lock(Path(url.database or ""), command))

        def on_wait(reason: str) -> None:
            log.warning("database.waiting", reason=reason, hint="the work goes on by itself when this is over")

        database = await stack.enter_async_context(
            open_database(settings, make=True, busy_timeout=busy_timeout, on_wait=on_wait)
        )
        session = await stack.enter_async_context(open_session(settings, clock, after_request))
        albert = ChatSessionCollection(session=session)
        watchdog = Watchdog(clock, longest_silence(settings), lambda: database.waiting)
        witness = Witness(database=database, albert=albert, clock=clock, log=log)
        reconcile_clock = BeatingClock(clock, watchdog, "reconcile")
        push = Push(database=database, albert=albert, clock=clock, log=log, settings=push_settings(settings))
        await push.recover(abandoned=alone)

        def mirrored(counts: Mapping[str, int]) -> None:
            push.note_response()
            if on_page is not None:
                on_page(counts)

        pull = Pull(
            database=database,
            albert=albert,
            clock=BeatingClock(clock, watchdog, "passes"),
            log=log,
            settings=pull_settings(settings),
            on_page=mirrored,
        )
        yield Flows(
            database,
            albert,
            clock,
            pull,
            push,
            Reconcile(
                database=database,
                lookups=Lookups(albert=albert, clock=reconcile_clock, witness=witness),
                clock=reconcile_clock,
                log=log,
                settle=settings.syncd_unknown_settle,
            ),
            session,
            watchdog,
            SingleLeader()
            if alone
            else await stack.enter_async_context(replica(url, clock, busy_timeout=busy_timeout, on_wait=on_wait)),
        )
