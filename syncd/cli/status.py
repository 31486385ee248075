"""`syncd status`: is the mirror fresh, and what needs a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.asking import SilentError, ask_status
from syncd.cli.common import as_json_option, print_json, print_rows, read, takes_settings
from syncd.logs import safe_text
from syncd.status.health import assess, duration, sentence

if TYPE_CHECKING:
    from syncd.settings import Loaded, Settings

PASSES = ("id", "state", "started_at", "pages", "seen", "inserted", "updated", "missing", "deleted", "error")


@click.command(short_help="Show freshness, counts, passes and the queue.")
@as_json_option
@takes_settings()
@click.pass_context
def status(context: click.Context, loaded: Loaded, *, as_json: bool) -> None:
    """Show freshness, counts, the last passes, the queue and what to type; exit 0 when healthy, 1 when not.

    It asks the running daemon, which also knows whether Albert and the disk are there. If none answers, it reads the
    database alone. docs/operations.md lists every problem by its code.
    """
    silent = None
    try:
        document = ask_status(loaded.settings)
    except SilentError as error:
        document, silent = None, str(error)
    if document is None:
        document = _of_database(loaded, silent)
    if as_json:
        print_json(document)
    else:
        _show(document)
    context.exit(0 if document["healthy"] else 1)


def _of_database(loaded: Loaded, silent: str | None) -> dict[str, Any]:
    """Return the document as the database alone shows it, beside a daemon that is `silent` for this reason."""
    from syncd.status.document import document
    from syncd.tenant import explicitly_named_identity

    settings = loaded.settings
    overview, named = _overview(settings), explicitly_named_identity(settings)
    health = assess(
        overview, pass_interval=settings.syncd_pass_interval, now=datetime.now(UTC), named=named, silent=silent
    )
    return document(health, overview)


def _overview(settings: Settings) -> dict[str, Any]:
    from syncd.mirror.read import views

    overview = views.overview_of(settings.syncd_database_url.get_secret_value())
    return read(settings, views.overview) if overview is None else overview


def _show(document: dict[str, Any]) -> None:
    daemon = document["daemon"]
    if daemon is None:
        click.echo("daemon              no answer (for the reason, run: syncd healthcheck); from the database alone:")
    else:
        tenant = "" if daemon["tenant"] is None else f", tenant {daemon['tenant']}"
        role = "" if len(daemon["replicas"]) < 2 else f", {'leader' if daemon['leads'] else 'on standby'}"  # noqa: PLR2004 - two
        click.echo(
            safe_text(
                f"daemon              syncd {daemon['version']} on {daemon['host']}{role}; {daemon['origin']}{tenant}"
            )
        )
        for replica in daemon["replicas"]:
            click.echo(f"{'':19} {safe_text(replica)}")
    if "freshness" in document:
        _show_mirror(document)
    if document["starting"] and not document["problems"]:
        click.echo("starting: the first pass is under way")
    else:
        click.echo("healthy" if document["healthy"] else "needs you:")
    for problem in document["problems"]:
        click.echo(f"  - {_line(problem)}")
    if document["notices"]:
        click.echo("worth a look:")
    for notice in document["notices"]:
        click.echo(f"  - {_line(notice)}")


def _show_mirror(document: dict[str, Any]) -> None:
    fresh = document["freshness"]
    age = "never" if fresh["age_seconds"] is None else f"{duration(fresh['age_seconds'])} ago"
    click.echo(f"last complete pass  {age}")
    click.echo(
        f"sessions            {fresh['live_sessions']} live, {fresh['missing_sessions']} of them missing; "
        f"{fresh['deleted_sessions']} deleted; {fresh['quarantined_items']} items in quarantine"
    )
    for what in ("operations", "sources"):
        counts = ", ".join(f"{count} {state}" for state, count in document[what].items() if count) or "none"
        click.echo(f"{what:19} {counts}")
    click.echo()
    print_rows(map(_with_times, document["passes"]), PASSES, as_json=False, empty="no passes yet")
    click.echo()


def _with_times(row: dict[str, Any]) -> dict[str, Any]:
    """Return a pass whose times are `datetime` also if a daemon sent them as text."""
    times = {name: datetime.fromisoformat(row[name]) for name in ("started_at",) if isinstance(row[name], str)}
    return {**row, **times}


def _line(problem: dict[str, str | None]) -> str:
    return safe_text(sentence(str(problem["text"]), problem["command"]))
