"""`syncd status`: is the mirror fresh, and what needs a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, print_json, print_rows, read, takes_settings
from syncd.status.health import duration, notices, problems

if TYPE_CHECKING:
    from syncd.settings import Loaded, Settings

PASSES = ("id", "state", "started_at", "pages", "seen", "inserted", "updated", "missing", "deleted", "error")


@click.command(short_help="Show freshness, counts, passes and the queue.")
@as_json_option
@takes_settings()
@click.pass_context
def status(context: click.Context, loaded: Loaded, *, as_json: bool) -> None:
    """Show freshness, counts, the last passes, the queue and what to type; exit 0 when healthy, 1 when not.

    Not healthy are a stale mirror, a last pass that was not complete, held deletions, and a dead operation. It reads
    the database alone, so it works whether a daemon runs or not.
    """
    from syncd.tenant import explicitly_named_identity

    overview = _overview(loaded.settings)
    named = explicitly_named_identity(loaded.settings)
    found = problems(overview, pass_interval=loaded.settings.syncd_pass_interval, named=named)
    if as_json:
        print_json({"healthy": not found, "problems": found, "notices": notices(overview), **overview})
    else:
        _show(overview, found)
    context.exit(1 if found else 0)


def _overview(settings: Settings) -> dict[str, Any]:
    from syncd.mirror.read import views

    overview = views.overview_of(settings.syncd_database_url.get_secret_value())
    return read(settings, views.overview) if overview is None else overview


def _show(overview: dict[str, Any], found: list[str]) -> None:
    fresh = overview["freshness"]
    age = "never" if fresh["age_seconds"] is None else f"{duration(fresh['age_seconds'])} ago"
    click.echo(f"last complete pass  {age}")
    click.echo(
        f"sessions            {fresh['live_sessions']} live, {fresh['missing_sessions']} of them missing; "
        f"{fresh['deleted_sessions']} deleted; {fresh['quarantined_items']} items in quarantine"
    )
    for what in ("operations", "sources"):
        counts = ", ".join(f"{count} {state}" for state, count in overview[what].items() if count) or "none"
        click.echo(f"{what:19} {counts}")
    click.echo()
    print_rows(overview["passes"], PASSES, as_json=False, empty="no passes yet")
    click.echo()
    click.echo("healthy" if not found else "needs you:")
    for problem in found:
        click.echo(f"  - {problem}")
    if worth_a_look := notices(overview):
        click.echo("worth a look:")
    for notice in worth_a_look:
        click.echo(f"  - {notice}")
