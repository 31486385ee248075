"""`syncd quarantine`: items that could not be read."""

from __future__ import annotations

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
    takes_settings,
    write,
)
from syncd.errors import SyncdError

if TYPE_CHECKING:
    from syncd.settings import Loaded


@click.group()
def quarantine() -> None:
    """Show listed items that cannot be read, read them again, or accept them."""


@quarantine.command("list", short_help="List what is in quarantine.")
@limit_option
@as_json_option
@takes_settings()
def list_(loaded: Loaded, limit: int, *, as_json: bool) -> None:
    """List what is in quarantine, oldest first, accepted items included; --json shows the whole payloads."""
    from syncd.mirror.store import quarantine as items

    rows: Any = read(loaded.settings, lambda c: [dict(r._mapping) for r in items.unresolved(c, limit=limit)])  # noqa: SLF001
    columns = ("id", "session_id", "reason", "seen_at", "accepted_at", "pass_id", "payload")
    print_rows(rows, columns, as_json=as_json, empty="nothing is in quarantine")


@quarantine.command(short_help="Read the items again.")
@as_json_option
@takes_settings()
def replay(loaded: Loaded, *, as_json: bool) -> None:
    """Read the items again with this version of syncd; those that it can read go into the mirror."""
    from syncd.mirror.db.shared_clock import read_clock
    from syncd.mirror.store.replay import replay as replay_all

    replayed = write(loaded.settings, lambda c: replay_all(c, read_clock(c)))
    if as_json:
        print_json(replayed._asdict())
    else:
        click.echo(f"{replayed.resolved} could be read now, {replayed.left} could not")


@quarantine.command(short_help="Accept items as they are.")
@click.argument("row_ids", type=ROW_ID, metavar="ID...", nargs=-1, required=True)
@by_option
@as_json_option
@takes_settings()
def accept(loaded: Loaded, row_ids: tuple[int, ...], by: str, *, as_json: bool) -> None:
    """Accept items that cannot be read, by the ids that `syncd quarantine list` shows: all of them or none.

    An item without a readable id makes every pass partial until it is accepted. An accepted item makes no pass partial
    and is not counted. When its content changes it is a new item.
    """
    from syncd.mirror.db.shared_clock import read_clock
    from syncd.mirror.store import quarantine as items

    problem = write(loaded.settings, lambda c: items.accept(c, row_ids, now=read_clock(c), by=by))
    if problem is not None:
        raise SyncdError(f"{problem}; nothing was accepted; see: syncd quarantine list")
    if as_json:
        print_json({"accepted": list(dict.fromkeys(row_ids))})
    else:
        click.echo(f"accepted: {', '.join(map(str, dict.fromkeys(row_ids)))}")
