"""`syncd enqueue`: queues operations. The commands of the kinds are made from `records.operation_kinds`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, force_option, print_json, print_rows, run, say, takes_settings, write
from syncd.errors import UsageError
from syncd.logs import safe_text
from syncd.records.operation_kinds import IMPORT_COLUMNS, SPECS, KindSpec
from syncd.status.health import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from syncd.mirror.db.database import Connection
    from syncd.records.ids import OperationId
    from syncd.rules.lookalikes import Lookalike
    from syncd.settings import Loaded, Settings

_OPTIONS = {
    "session_id": ("--id", "ID"),
    "source_session_id": ("--source-session-id", "S"),
    "name": ("--name", "N"),
    "parent_id": ("--parent-id", "P"),
}
"""The option and the placeholder for each column of an operation."""


@click.group()
def enqueue() -> None:
    """Queue operations; a running daemon notices them immediately."""


def _command(spec: KindSpec) -> click.Command:
    """Make the command that queues an operation of a kind."""

    @force_option
    @as_json_option
    @takes_settings()
    def queue(loaded: Loaded, *, as_json: bool, force: bool, **columns: str | None) -> None:
        _queue(loaded, {"kind": spec.kind.value, **columns}, as_json=as_json, force=force)

    queue = click.option(
        "--requested-by", metavar="NAME", help="The person or program that requests the operation; free text."
    )(queue)
    for column, text in reversed(list(spec.help.items())):
        option, metavar = _OPTIONS[column]
        queue = click.option(option, column, required=column in spec.required, metavar=metavar, help=text)(queue)
    summary = f"{spec.summary}; prints the operation's id."
    return click.command(
        spec.kind.value,
        help=f"{summary}\n\n{spec.details}",
        short_help=f"Queue {spec.named}; prints the operation's id.",
    )(queue)


def _queue(loaded: Loaded, row: dict[str, Any], *, as_json: bool, force: bool) -> None:
    from syncd.files.imports import check_operation
    from syncd.mirror.store import quick_enqueue
    from syncd.tenant import explicitly_named_identity

    reason = check_operation(row)
    if reason is not None:
        raise UsageError(reason)
    settings = loaded.settings
    operation_id = quick_enqueue.enqueue(
        settings.syncd_database_url.get_secret_value(), row, explicitly_named_identity(settings)
    )
    if operation_id is None:
        operation_id = _queue_with_checks(settings, row, force=force)
    if as_json:
        print_json({"id": operation_id})
    else:
        click.echo(operation_id)


def _queue_with_checks(settings: Settings, row: dict[str, Any], *, force: bool) -> OperationId:
    from syncd.mirror.store import operations

    (operation_id,) = write(settings, lambda c: operations.enqueue(c, [row]), make=True, force=force)
    return operation_id


for _spec in SPECS.values():
    enqueue.add_command(_command(_spec))


@enqueue.command(
    "import",
    short_help="Queue a whole CSV or JSON Lines file.",
    help=f"""Queue all rows of a file, or none: CSV, JSON Lines or a JSON array; - for standard input.

    Columns: {", ".join(IMPORT_COLUMNS)}. A row without a kind is a create. CSV can have commas, semicolons or tabs; the
    text is UTF-8, UTF-16 or UTF-32. Rows of empty cells are skipped. An empty cell leaves its column out; in JSON,
    "parent_id": "" in an update moves the session out of its folder. Workbooks (.xlsx) are refused: save them as CSV.

    A file with a bad row is refused with the line and the reason. A dry run compares each row with the mirror and the
    queue. Ids that differ from others only in white space, invisible characters or case are reported, with or without
    a dry run.
    """,
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Queue nothing; show the outcome of each row.")
@force_option
@as_json_option
@takes_settings()
def import_(loaded: Loaded, file: Path, *, dry_run: bool, as_json: bool, force: bool) -> None:
    """Queue a file of operations."""
    from syncd.cli.progress import bar
    from syncd.files import imports
    from syncd.files.open_text import open_text
    from syncd.mirror.store import lookalikes
    from syncd.mirror.store.import_plan import enqueue_all

    with bar("reading", total=None) as advance:
        rows = imports.read_operations(open_text(file), on_row=advance)
    if dry_run:
        _plan(loaded, rows, as_json=as_json)
        return
    with bar("queueing", total=len(rows)) as advance:

        def work(connection: Connection) -> list[Lookalike]:
            similar = lookalikes.find(connection, rows)
            enqueue_all(connection, rows, on_row=advance)
            return similar

        similar = write(loaded.settings, work, make=True, force=force)
    for lookalike in similar:
        say(f"lookalike: {safe_text(str(lookalike))}")
    if as_json:
        print_json({"queued": len(rows)})
    else:
        click.echo(f"queued {counted(len(rows), 'operation', 'operations')}")


def _plan(loaded: Loaded, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    from syncd.mirror.read import views
    from syncd.mirror.store import import_plan, lookalikes
    from syncd.opening import read_before_it_is_made

    def work(connection: Connection) -> tuple[list[dict[str, Any]], list[Lookalike], Mapping[str, Any]]:
        similar = lookalikes.find(connection, rows)
        return import_plan.plan(connection, rows), similar, views.freshness(connection)

    planned, similar, fresh = run(lambda: read_before_it_is_made(loaded.settings, work))
    _show_plan(planned, similar, as_json=as_json)
    if fresh["last_complete_pass_at"] is None:
        say("no pass is complete yet, so the mirror may lack sessions that Albert has; run: syncd once")


def _show_plan(plan: list[dict[str, Any]], similar: list[Lookalike], *, as_json: bool) -> None:
    totals: dict[str, int] = {}
    for row in plan:
        totals[row["outcome"]] = totals.get(row["outcome"], 0) + 1
    if as_json:
        print_json({"totals": totals, "rows": plan, "lookalikes": [lookalike.as_data() for lookalike in similar]})
        return
    place_columns = ("line",) if all(row["item"] is None for row in plan) else ("line", "item")
    print_rows(plan, (*place_columns, "kind", "source_session_id", "id", "outcome", "note"), as_json=False)
    for lookalike in similar:
        click.echo(f"lookalike: {safe_text(str(lookalike))}")
    say("dry run, nothing was queued: " + (", ".join(f"{n} {name}" for name, n in totals.items()) or "no rows"))
