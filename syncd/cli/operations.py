"""`syncd operations`: the queue, for an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from syncd.cli.common import (
    ROW_ID,
    as_json_option,
    by_option,
    limit_option,
    plain,
    print_json,
    print_rows,
    read,
    say,
    takes_settings,
    write,
)
from syncd.errors import SyncdError
from syncd.logs import safe_text
from syncd.mirror.schema import enums
from syncd.records.enums import OperationState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.operation_decisions import Decided, Operator
    from syncd.records.ids import OperationId
    from syncd.settings import Loaded, Settings

T = TypeVar("T")


@click.group()
def operations() -> None:
    """Show the queue, and decide about operations that need a person."""


@operations.command("list", short_help="List operations, newest first.")
@click.option("--state", type=click.Choice(enums.OPERATIONS), help="Only those in this state.")
@click.option("--on-hold", is_flag=True, help="Only those that wait for a release after a restore.")
@limit_option
@as_json_option
@takes_settings()
def list_(loaded: Loaded, state: str | None, limit: int, *, on_hold: bool, as_json: bool) -> None:
    """List operations, newest first.

    BLOCKED_BY is the first earlier operation on the same source id or session id that is not over. HOLD is "on hold"
    for an operation of a restored backup: it waits for syncd operations release, or cancel.
    """
    rows = _list_operations(loaded.settings, state=state, limit=limit, on_hold=on_hold)
    if not as_json:  # in the table one column has the session, named by the operation or found by it
        rows = [
            {**row, "session_id": row["session_id"] or row["result_session_id"], "hold": _hold(row)} for row in rows
        ]
    columns = (
        "id", "kind", "state", "hold", "source_session_id", "session_id", "attempts", "next_attempt_at", "blocked_by",
        "last_error",
    )  # fmt: skip
    print_rows(rows, columns, as_json=as_json, empty="no operations")


def _list_operations(settings: Settings, *, state: str | None, limit: int, on_hold: bool) -> list[dict[str, Any]]:
    from syncd.mirror.store import operation_views

    url = settings.syncd_database_url.get_secret_value()
    rows = operation_views.listing_of(url, state=state, limit=limit, on_hold=on_hold)
    if rows is not None:
        return rows
    return read(settings, lambda c: operation_views.listing(c, state=state, limit=limit, on_hold=on_hold))


def _hold(row: dict[str, Any]) -> str | None:
    return None if row["on_hold_at"] is None else "on hold"


@operations.command(short_help="Show everything that is known about one operation.")
@click.argument("operation_id", type=ROW_ID, metavar="ID")
@as_json_option
@takes_settings()
def show(loaded: Loaded, operation_id: OperationId, *, as_json: bool) -> None:
    """Show everything that is known about one operation."""
    from syncd.mirror.store import operation_views

    row = read(loaded.settings, lambda c: operation_views.get(c, operation_id))
    if row is None:
        raise SyncdError(f"there is no operation {operation_id}; see: syncd operations list")
    if as_json:
        print_json(row)
        return
    for name, value in row.items():
        if value is not None:
            click.echo(f"{name:18} {safe_text(str(plain(value)))}")


_ids = click.argument("ids", type=ROW_ID, nargs=-1, metavar="[ID]...")


@operations.command("retry", short_help="Make dead operations pending again.")
@_ids
@click.option("--state", type=click.Choice([OperationState.DEAD.value]), help="All operations in this state.")
@by_option
@as_json_option
@takes_settings()
def retry(loaded: Loaded, ids: tuple[OperationId, ...], state: str | None, by: str, *, as_json: bool) -> None:
    """Make dead operations pending again, with all of their attempts: those named, or all with --state dead."""
    from syncd.mirror.store import operation_decisions

    if _wants_all(ids, named="--state dead", given=state is not None):
        _decide_all(loaded, by, operation_decisions.retry_all_dead, "pending again", as_json=as_json)
    else:
        _decide(loaded, ids, by, operation_decisions.retry, "pending again", as_json=as_json)


@operations.command("cancel", short_help="Cancel operations that are pending, unknown or dead.")
@click.argument("ids", type=ROW_ID, nargs=-1, required=True, metavar="ID...")
@by_option
@as_json_option
@takes_settings()
def cancel(loaded: Loaded, ids: tuple[OperationId, ...], by: str, *, as_json: bool) -> None:
    """Cancel operations that are pending, unknown or dead, so that they no longer block their key.

    An unknown operation may have been applied: its answer was lost. Nothing more is sent for it.
    """
    from syncd.mirror.store import operation_decisions

    _decide(loaded, ids, by, operation_decisions.cancel, "cancelled", as_json=as_json)


@operations.command("release", short_help="End the hold of operations of a restored backup.")
@_ids
@click.option("--all", "everything", is_flag=True, help="All operations that are on hold.")
@by_option
@as_json_option
@takes_settings()
def release(loaded: Loaded, ids: tuple[OperationId, ...], by: str, *, everything: bool, as_json: bool) -> None:
    """End the hold of operations of a restored backup: those named, or all with --all.

    A released operation continues as if it had been requested now. If Albert has done it since the backup was made,
    cancel it instead.
    """
    from syncd.mirror.store import operation_decisions

    if _wants_all(ids, named="--all", given=everything):
        _decide_all(loaded, by, operation_decisions.release_all, "released", as_json=as_json)
    else:
        _decide(loaded, ids, by, operation_decisions.release, "released", as_json=as_json)


def _wants_all(ids: Sequence[OperationId], *, named: str, given: bool) -> bool:
    """Return whether the command is about all operations; refuse ids and the option together, and neither of them."""
    if given == bool(ids):
        raise click.UsageError(f"give the ids of operations, or {named}; not both" if given else f"give ids or {named}")
    return given


def _decide(
    loaded: Loaded,
    ids: Sequence[OperationId],
    by: str,
    decision: Callable[[Connection, OperationId, Operator], Decided],
    done: str,
    *,
    as_json: bool,
) -> None:
    """Decide about each operation. A decision that is not possible leaves the others alone, and the command exits 1."""
    unique = dict.fromkeys(ids)
    decided = _write(loaded, by, lambda c, operator: [decision(c, number, operator) for number in unique])
    if as_json:
        print_json([_as_json(result) for result in decided])
    for result in decided:
        if result.problem is None and not as_json:
            click.echo(f"operation {result.id} is {done}")
        if result.warning is not None:
            say(f"warning: {result.warning}")
    problems = [result.problem for result in decided if result.problem is not None]
    if problems:
        raise SyncdError("\n".join(problems))


def _as_json(decided: Decided) -> dict[str, Any]:
    warning = {} if decided.warning is None else {"warning": decided.warning}
    return {"id": decided.id, "error": decided.problem, **warning}


def _decide_all(
    loaded: Loaded,
    by: str,
    decision: Callable[[Connection, Operator], Sequence[int]],
    done: str,
    *,
    as_json: bool,
) -> None:
    """Decide about all operations of a kind; there may be none."""
    ids = _write(loaded, by, decision)
    if as_json:
        print_json([{"id": operation_id, "error": None} for operation_id in ids])
    else:
        click.echo(f"{len(ids)} {'operation is' if len(ids) == 1 else 'operations are'} {done}")


def _write(loaded: Loaded, by: str, work: Callable[[Connection, Operator], T]) -> T:
    from syncd.mirror.db.shared_clock import read_clock
    from syncd.mirror.store.operation_decisions import Operator

    return write(loaded.settings, lambda c: work(c, Operator(by, read_clock(c))))
