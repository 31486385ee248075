"""`syncd deletions`: the deletions that passes hold, and the operator's decision on them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import (
    ROW_ID,
    as_json_option,
    by_option,
    limit_option,
    print_json,
    print_rows,
    read,
    say,
    takes_settings,
    write,
)
from syncd.logs import safe_text
from syncd.records.enums import HOLDS_IN_FORCE, HoldState

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.holds import Hold
    from syncd.records.ids import PassId
    from syncd.settings import Loaded

COLUMNS = ("id", "state", "opened_at", "updated_at", "missing", "reason", "error")


@click.group()
def deletions() -> None:
    """Decide on deletions that are held because too many sessions would be deleted.

    A hold is named by the first pass that was held. The id of every later pass with the same hold works too.
    """


@deletions.command("list", short_help="List the holds that wait for a decision.")
@click.option("--all", "all_", is_flag=True, help="List approved and rejected holds too, while they are in force.")
@as_json_option
@takes_settings()
def list_(loaded: Loaded, *, all_: bool, as_json: bool) -> None:
    """List the holds that wait for a decision, newest first; MISSING is the number of sessions.

    An approved hold is in force until each of its sessions is deleted or seen again. A rejected hold is in force until
    each of its sessions is listed again; it can still be approved.
    """
    from syncd.mirror.store import holds

    states = HOLDS_IN_FORCE if all_ else (HoldState.OPEN,)
    rows = read(loaded.settings, lambda c: [_row(hold) for hold in holds.listed(c, states)])
    print_rows(rows, COLUMNS, as_json=as_json, empty="nothing is held", longest=250)


def _row(hold: Hold) -> dict[str, Any]:
    return {"id": hold.pass_id, **asdict(hold), "missing": hold.sessions, "error": hold.detail}


@deletions.command("show", short_help="List the sessions of a hold.")
@click.argument("pass_id", type=ROW_ID, metavar="PASS")
@limit_option
@as_json_option
@takes_settings()
def show(loaded: Loaded, pass_id: PassId, limit: int, *, as_json: bool) -> None:
    """List the sessions that an approval of PASS would delete, before you approve or reject it."""
    from syncd.mirror.store import holds

    def look(connection: Connection) -> tuple[Hold, list[dict[str, Any]]]:
        hold = holds.get(connection, pass_id)
        return hold, [dict(row) for row in holds.session_rows(connection, hold.hold_id, limit=limit)]

    hold, rows = read(loaded.settings, look)
    columns = ("id", "name", "source_session_id", "created_by_name", "last_message_at")
    print_rows(rows, columns, as_json=as_json, empty="none of its sessions is live any more")
    say(safe_text(f"pass {pass_id} is held ({hold.state}): {hold.detail}"))


@deletions.command("approve", short_help="Allow the deletion of the sessions of a hold.")
@click.argument("pass_id", type=ROW_ID, metavar="PASS")
@by_option
@as_json_option
@takes_settings()
def approve(loaded: Loaded, pass_id: PassId, by: str, *, as_json: bool) -> None:
    """Allow the deletion of the sessions of PASS in the next cycle, each after a 404 of its own.

    Sessions that Albert still has stay. If the pass was held because Albert knew none of the sessions that it requested
    first, the next pass goes on without these requests.
    """
    _decide(loaded, pass_id, HoldState.APPROVED, by, as_json=as_json)


@deletions.command("reject", short_help="Keep the sessions of a hold.")
@click.argument("pass_id", type=ROW_ID, metavar="PASS")
@by_option
@as_json_option
@takes_settings()
def reject(loaded: Loaded, pass_id: PassId, by: str, *, as_json: bool) -> None:
    """Keep the sessions of PASS live while they are not listed; they cause no other hold.

    A rejection ends for a session that is listed again. To end it earlier, approve PASS. If the pass was held because
    Albert knew none of the sessions that it requested first, passes stay held, without another report, until Albert
    knows one of them again.
    """
    _decide(loaded, pass_id, HoldState.REJECTED, by, as_json=as_json)


def _decide(loaded: Loaded, pass_id: PassId, decision: HoldState, by: str, *, as_json: bool) -> None:
    from syncd.mirror.db.shared_clock import read_clock
    from syncd.mirror.store import holds

    hold = write(loaded.settings, lambda c: holds.decide(c, pass_id, decision, by=by, now=read_clock(c)))
    if as_json:
        print_json({"pass": pass_id, "decision": decision, "by": by, "sessions": hold.sessions})
    else:
        click.echo(f"pass {pass_id} is {decision}")
