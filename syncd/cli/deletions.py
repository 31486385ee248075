"""`syncd deletions`: the sweeps that the guard holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import (
    ROW_ID,
    as_json_option,
    limit_option,
    print_json,
    print_rows,
    read,
    takes_settings,
    write,
)
from syncd.errors import SyncdError

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection
    from syncd.settings import Loaded


@click.group()
def deletions() -> None:
    """Decide on passes that are held because too many sessions would go."""


@deletions.command("list", short_help="List the held passes that wait for a decision.")
@as_json_option
@takes_settings()
def list_(loaded: Loaded, *, as_json: bool) -> None:
    """List the held passes that wait for a decision, newest first; MISSING is how many sessions would go."""
    from syncd.mirror.store import passes

    rows: Any = read(loaded.settings, lambda c: [dict(row._mapping) for row in passes.open_holds(c)])  # noqa: SLF001
    print_rows(rows, ("id", "started_at", "seen", "missing", "error"), as_json=as_json, empty="nothing is held")


@deletions.command("show", short_help="List the sessions that a held pass would let go.")
@click.argument("pass_id", type=ROW_ID, metavar="PASS")
@limit_option
@as_json_option
@takes_settings()
def show(loaded: Loaded, pass_id: int, limit: int, *, as_json: bool) -> None:
    """List the sessions that a held pass would let go, before you approve or reject it."""
    from syncd.mirror.store import passes

    def look(connection: Connection) -> list[dict[str, Any]]:
        found = passes.held_rows(connection, pass_id, limit=limit)
        if found is None:
            raise SyncdError(f"pass {pass_id} does not wait for a decision; see: syncd deletions list")
        return [dict(row) for row in found]

    columns = ("id", "name", "source_session_id", "created_by_name", "last_message_at")
    print_rows(read(loaded.settings, look), columns, as_json=as_json, empty="none of its sessions is live any more")


@deletions.command("approve", short_help="Let the sessions of a held pass go.")
@click.argument("pass_id", type=ROW_ID, metavar="PASS")
@as_json_option
@takes_settings()
def approve(loaded: Loaded, pass_id: int, *, as_json: bool) -> None:
    """Let the sessions of a held pass go in the next cycle, each still after a 404 of its own."""
    _decide(loaded, pass_id, "approved", as_json=as_json)


@deletions.command("reject", short_help="Keep the sessions of a held pass.")
@click.argument("pass_id", type=ROW_ID, metavar="PASS")
@as_json_option
@takes_settings()
def reject(loaded: Loaded, pass_id: int, *, as_json: bool) -> None:
    """Keep the sessions of a held pass live until a later pass misses them anew."""
    _decide(loaded, pass_id, "rejected", as_json=as_json)


def _decide(loaded: Loaded, pass_id: int, decision: str, *, as_json: bool) -> None:
    from syncd.clock import SystemClock
    from syncd.mirror.store import passes

    now = SystemClock().now()
    problem = write(loaded.settings, lambda c: passes.decide(c, pass_id, decision, now))
    if problem is not None:
        raise SyncdError(problem)
    if as_json:
        print_json({"pass": pass_id, "decision": decision})
    else:
        click.echo(f"pass {pass_id} is {decision}")
