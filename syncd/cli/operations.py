"""`syncd operations`: the queue, for an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    takes_settings,
    write,
)
from syncd.errors import SyncdError, UsageError
from syncd.logs import safe_text
from syncd.mirror.schema import enums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from syncd.settings import Loaded


@click.group()
def operations() -> None:
    """Show the queue; retry, cancel or release operations."""


@operations.command("list", short_help="List operations, newest first.")
@click.option("--state", type=click.Choice(enums.OPERATIONS), help="Only those in this state.")
@limit_option
@as_json_option
@takes_settings()
def list_(loaded: Loaded, state: str | None, limit: int, *, as_json: bool) -> None:
    """List operations, newest first.

    BLOCKED_BY is the earlier operation on the same source id or session id, which must end first.
    """
    from syncd.mirror.store import operations as mirror

    rows: Any = read(loaded.settings, lambda c: mirror.listing(c, state=state, limit=limit))
    if not as_json:  # people want one column for the session, named by the operation or found by it
        rows = [{**row, "session_id": row["session_id"] or row["result_session_id"]} for row in rows]
    columns = (
        "id", "kind", "state", "source_session_id", "session_id", "attempts", "next_attempt_at", "blocked_by",
        "last_error",
    )  # fmt: skip
    print_rows(rows, columns, as_json=as_json, empty="no operations")


@operations.command(short_help="Show all there is to know of one operation.")
@click.argument("operation_id", type=ROW_ID, metavar="ID")
@as_json_option
@takes_settings()
def show(loaded: Loaded, operation_id: int, *, as_json: bool) -> None:
    """Show all there is to know of one operation."""
    from syncd.mirror.store import operations as mirror

    row: Any = read(loaded.settings, lambda c: mirror.get(c, operation_id))
    if row is None:
        raise SyncdError(f"there is no operation {operation_id}; see: syncd operations list")
    if as_json:
        print_json(dict(row))
        return
    for name, value in row.items():
        if value is not None:
            click.echo(f"{name:18} {safe_text(str(plain(value)))}")


@operations.command("retry", short_help="Make dead operations pending again.")
@click.argument("ids", type=ROW_ID, nargs=-1, required=True, metavar="ID...")
@as_json_option
@takes_settings()
def retry(loaded: Loaded, ids: tuple[int, ...], *, as_json: bool) -> None:
    """Make dead operations pending again, with all of their attempts before them."""
    from syncd.mirror.store import operations as mirror

    _decide(loaded, ids, mirror.retry, "pending again", as_json=as_json)


@operations.command("cancel", short_help="Cancel pending operations, or give up dead ones.")
@click.argument("ids", type=ROW_ID, nargs=-1, required=True, metavar="ID...")
@as_json_option
@takes_settings()
def cancel(loaded: Loaded, ids: tuple[int, ...], *, as_json: bool) -> None:
    """Cancel pending operations, or give up dead ones so that they block their key no longer."""
    from syncd.mirror.store import operations as mirror

    _decide(loaded, ids, mirror.cancel, "cancelled", as_json=as_json)


@operations.command("release", short_help="End the hold of operations of a restored backup.")
@click.argument("ids", type=ROW_ID, nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All operations that are on hold.")
@by_option
@as_json_option
@takes_settings()
def release(loaded: Loaded, ids: tuple[int, ...], by: str, *, everything: bool, as_json: bool) -> None:
    """End the hold of operations of a restored backup: those named, or all with --all.

    A released operation continues where the backup was made. If Albert has applied it since, cancel it instead.
    """
    from syncd.clock import SystemClock
    from syncd.mirror.store import restored

    if everything is bool(ids):
        raise UsageError("name operations by their ids, or all of them with --all")
    now = SystemClock().now()
    outcomes = write(loaded.settings, lambda c: restored.release(c, None if everything else ids, by=by, now=now))
    if everything and not as_json:
        click.echo(f"{len(outcomes)} {'operation is' if len(outcomes) == 1 else 'operations are'} released")
    else:
        _report(outcomes, "released", as_json=as_json)


def _decide(
    loaded: Loaded, ids: tuple[int, ...], decision: Callable[..., str | None], done: str, *, as_json: bool
) -> None:
    """Decide on each operation; those that cannot be decided on leave the others alone, and exit 1."""
    from syncd.clock import SystemClock

    now = SystemClock().now()
    _report(write(loaded.settings, lambda c: {one: decision(c, one, now) for one in ids}), done, as_json=as_json)


def _report(outcomes: Mapping[int, str | None], done: str, *, as_json: bool) -> None:
    """Print each decision that was possible.

    Raises
    ------
    SyncdError
        Some were not possible.
    """
    if as_json:
        print_json([{"id": one, "error": problem} for one, problem in outcomes.items()])
    else:
        for one, problem in outcomes.items():
            if problem is None:
                click.echo(f"operation {one} is {done}")
    problems = [problem for problem in outcomes.values() if problem is not None]
    if problems:
        raise SyncdError("\n".join(problems))
