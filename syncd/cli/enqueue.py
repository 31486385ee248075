"""`syncd enqueue`: put operations into the queue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, force_option, print_json, print_rows, run, say, takes_settings, write
from syncd.errors import UsageError
from syncd.logs import safe_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from syncd.mirror.db.database import Connection
    from syncd.rules.lookalikes import Lookalike
    from syncd.settings import Loaded


@click.group()
def enqueue() -> None:
    """Queue creates and deletes; a running daemon notices them at once."""


def _queue(loaded: Loaded, row: dict[str, Any], *, as_json: bool, force: bool) -> None:
    from syncd.files.imports import check_operation
    from syncd.mirror.store import operations

    reason = check_operation(row)
    if reason is not None:
        raise UsageError(reason)
    (operation_id,) = write(loaded.settings, lambda c: operations.enqueue(c, [row]), make=True, force=force)
    if as_json:
        print_json({"id": operation_id})
    else:
        click.echo(operation_id)


@enqueue.command(short_help="Queue a create; prints the operation's id.")
@click.option("--source-session-id", required=True, metavar="S", help="The external id that the session must have.")
@click.option("--name", required=True, metavar="N", help="The name to create it with.")
@click.option("--parent-id", metavar="P", help="The folder to create it in.")
@click.option("--requested-by", metavar="WHO", help="Whoever wants it; free text.")
@force_option
@as_json_option
@takes_settings()
def create(
    loaded: Loaded,
    source_session_id: str,
    name: str,
    parent_id: str | None,
    requested_by: str | None,
    *,
    as_json: bool,
    force: bool,
) -> None:
    """Make sure that a session with this source id exists; prints the operation's id.

    A session that Albert already has with this source id is adopted as it is.
    """
    row = {
        "kind": "create", "source_session_id": source_session_id, "name": name, "parent_id": parent_id,
        "requested_by": requested_by,
    }  # fmt: skip
    _queue(loaded, row, as_json=as_json, force=force)


@enqueue.command(short_help="Queue a delete; prints the operation's id.")
@click.option("--id", "session_id", metavar="ID", help="Albert's id of the session.")
@click.option("--source-session-id", metavar="S", help="The external id of the session.")
@click.option("--requested-by", metavar="WHO", help="Whoever wants it; free text.")
@force_option
@as_json_option
@takes_settings()
def delete(
    loaded: Loaded,
    session_id: str | None,
    source_session_id: str | None,
    requested_by: str | None,
    *,
    as_json: bool,
    force: bool,
) -> None:
    """Delete a session, by its id or by its source id; prints the operation's id."""
    row = {
        "kind": "delete", "session_id": session_id, "source_session_id": source_session_id,
        "requested_by": requested_by,
    }  # fmt: skip
    _queue(loaded, row, as_json=as_json, force=force)


@enqueue.command("import", short_help="Queue a whole CSV or JSON Lines file.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Queue nothing; say what would become of each row.")
@force_option
@as_json_option
@takes_settings()
def import_(loaded: Loaded, file: Path, *, dry_run: bool, as_json: bool, force: bool) -> None:
    """Queue all rows of a file, or none: CSV, JSON Lines or a JSON array; - for standard input.

    Columns: kind (create when it is not given), source_session_id, name, parent_id, id. CSV can have commas, semicolons
    or tabs; the text is UTF-8 or UTF-16. Rows of empty cells are skipped. Workbooks (.xlsx) are refused: save them as
    CSV.

    A file with a bad row is refused with the line and the reason. A dry run compares each row with the mirror and the
    queue. It also reports ids that differ from others only in white space, invisible characters or case.
    """
    from syncd.cli.progress import bar
    from syncd.files import imports
    from syncd.files.open_text import open_text
    from syncd.mirror.store.import_plan import enqueue_all

    with bar("reading", total=None) as advance:
        rows = imports.read_operations(open_text(file), on_row=advance)
    if dry_run:
        _plan(loaded, rows, as_json=as_json)
        return
    with bar("queueing", total=len(rows)) as advance:
        write(loaded.settings, lambda c: enqueue_all(c, rows, on_row=advance), make=True, force=force)
    if as_json:
        print_json({"queued": len(rows)})
    else:
        click.echo(f"queued {len(rows)} operations")


def _plan(loaded: Loaded, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    from syncd.mirror.read import views
    from syncd.mirror.store import import_plan, lookalikes
    from syncd.opening import read_before_it_is_made

    def work(connection: Connection) -> tuple[list[dict[str, Any]], list[Lookalike], Mapping[str, Any]]:
        found = lookalikes.find(connection, rows)
        return import_plan.plan(connection, rows), found, views.freshness(connection)

    planned, similar, fresh = run(lambda: read_before_it_is_made(loaded.settings, work))
    _show_plan(planned, similar, as_json=as_json)
    if fresh["last_complete_pass_at"] is None:
        say("no pass has been completed yet: what Albert has and the mirror does not is not known; run: syncd once")


def _show_plan(plan: list[dict[str, Any]], similar: list[Lookalike], *, as_json: bool) -> None:
    totals: dict[str, int] = {}
    for one in plan:
        totals[one["outcome"]] = totals.get(one["outcome"], 0) + 1
    if as_json:
        print_json({"totals": totals, "rows": plan, "lookalikes": [each.as_data() for each in similar]})
        return
    print_rows(plan, ("line", "kind", "source_session_id", "id", "outcome", "note"), as_json=False)
    for each in similar:
        click.echo(f"lookalike: {safe_text(str(each))}")
    say("dry run, nothing was queued: " + (", ".join(f"{n} {name}" for name, n in totals.items()) or "no rows"))
