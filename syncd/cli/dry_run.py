"""`syncd once --dry-run`: what a pass would change, and which operations would be sent."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import print_json, run
from syncd.logs import safe_text
from syncd.status.health import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from syncd.albert import AsyncAlbertSession
    from syncd.clock import Clock
    from syncd.mirror.db.database import Reader
    from syncd.pull.dry_run import DryRun
    from syncd.settings import Settings


def report(settings: Settings, *, as_json: bool, force: bool) -> None:
    """Print the prediction.

    Parameters
    ----------
    force : bool
        Predict for a database although `migrate-store` moved its content to another one.

    Raises
    ------
    SyncdError
        Albert or the mirror could not be read, the settings or the credentials name another tenant, or the database
        was moved.
    """
    prediction = run(lambda: _predict(settings, force=force))
    if as_json:
        print_json(prediction)
        return
    if prediction["held"] is not None:
        click.echo(safe_text(f"a pass would be held and change nothing: {prediction['held']}"))
    if prediction["pages"]:
        _print_counts(prediction)
    queued = counted(prediction["operations"], "operation is", "operations are")
    click.echo(f"{queued} pending or unknown; nothing was written or sent")


def _print_counts(prediction: Mapping[str, Any]) -> None:
    listed = prediction["inserted"] + prediction["updated"] + prediction["unchanged"] + prediction["restored"]
    pages, sessions = counted(prediction["pages"], "page", "pages"), counted(listed, "session", "sessions")
    click.echo(f"the listing has {pages} with {sessions}")
    if prediction["held"] is not None:
        return
    click.echo(
        f"a pass would insert {prediction['inserted']}, update {prediction['updated']}, restore "
        f"{prediction['restored']} and leave {prediction['unchanged']} as they are; "
        f"{counted(prediction['quarantined'], 'item', 'items')} cannot be read"
    )
    unlisted = counted(prediction["not_listed"], "live session is", "live sessions are")
    click.echo(
        f"{unlisted} not listed; of these a pass would find {prediction['missing']} missing, and delete "
        f"{prediction['deleted']}"
    )
    if prediction["without_id"]:
        items = counted(prediction["without_id"], "item has", "items have")
        click.echo(f"{items} no readable id: unless that is accepted (syncd quarantine list), a pass deletes nothing")


async def _predict(settings: Settings, *, force: bool) -> dict[str, Any]:
    from syncd.albert_session import CurrentSettings, open_session
    from syncd.clock import SystemClock
    from syncd.mirror.store import identity, operation_views
    from syncd.opening import open_before_it_is_made
    from syncd.tenant import named_identity, require_active, tenant_of_credentials

    clock, named = SystemClock(), named_identity(settings)
    async with open_before_it_is_made(settings) as mirror, open_session(CurrentSettings(settings), clock) as session:
        stored = await mirror.read(identity.read)
        require_active(stored, named, force=force)
        tenant_id = await tenant_of_credentials(session)
        require_active(stored, replace(named, tenant_id=tenant_id or named.tenant_id), force=force)
        prediction = await _dry_run(settings, session, mirror, clock).predict()
        counts = await mirror.read(operation_views.counts)
    return {**prediction.as_dict(), "operations": counts["pending"] + counts["unknown"]}


def _dry_run(settings: Settings, session: AsyncAlbertSession, mirror: Reader, clock: Clock) -> DryRun:
    """Return a dry run with the ceilings, the retries and the guard of a pass."""
    from syncd.albert import ChatSessionCollection
    from syncd.app import pull_settings
    from syncd.pull.dry_run import DryRun
    from syncd.pull.retries import RequestRetries

    limits, began = pull_settings(settings), clock.monotonic()

    def ceiling(wait: float) -> str | None:
        late = clock.monotonic() - began + wait > limits.max_seconds
        return f"stopped at the ceiling of {limits.max_seconds:g} seconds" if late else None

    retries = RequestRetries(
        clock=clock, backoff=limits.backoff, jitter=random.random, ceiling=ceiling, on_retry=lambda *_: None
    )
    albert = ChatSessionCollection(session=session)
    return DryRun(
        albert=albert, mirror=mirror, clock=clock, retries=retries, max_pages=limits.max_pages, guard=limits.guard
    )
