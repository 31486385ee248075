"""`syncd once --dry-run`: what a pass would change, and which operations would be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import print_json, run

if TYPE_CHECKING:
    from syncd.settings import Settings


def report(settings: Settings, *, as_json: bool) -> None:
    """Print the prediction.

    Raises
    ------
    SyncdError
        Albert or the mirror could not be read, or the settings name another tenant.
    """
    found = run(lambda: _predict(settings))
    if as_json:
        print_json(found)
        return
    listed = found["inserted"] + found["updated"] + found["unchanged"] + found["restored"]
    click.echo(f"the listing has {found['pages']} pages with {listed} sessions")
    click.echo(
        f"a pass would insert {found['inserted']}, update {found['updated']}, restore {found['restored']} and leave "
        f"{found['unchanged']} as they are; {found['quarantined']} items cannot be read"
    )
    click.echo(
        f"{found['not_listed']} live sessions are not listed; a pass asks Albert about each before it finds one missing"
    )
    click.echo(f"{found['operations']} operations are pending or unknown; nothing was written or sent")


async def _predict(settings: Settings) -> dict[str, Any]:
    from syncd.albert import ChatSessionCollection
    from syncd.app import CurrentSettings, open_session
    from syncd.clock import SystemClock
    from syncd.mirror.store import identity, operation_views
    from syncd.opening import open_before_it_is_made
    from syncd.pull.dry_run import predict
    from syncd.tenant import named_identity, require_active

    async with open_before_it_is_made(settings) as read:
        require_active(await read(identity.read), named_identity(settings))
        async with open_session(CurrentSettings(settings), SystemClock()) as session:
            albert = ChatSessionCollection(session=session)
            prediction = await predict(albert, read, max_pages=settings.syncd_max_pass_pages)
        counts = await read(operation_views.counts)
    return {**prediction.as_dict(), "operations": counts["pending"] + counts["unknown"]}
