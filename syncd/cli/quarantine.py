"""`syncd quarantine`: items that could not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, limit_option, print_json, print_rows, read, takes_settings, write

if TYPE_CHECKING:
    from syncd.settings import Loaded


@click.group()
def quarantine() -> None:
    """Show listed items that could not be read, and try them again."""


@quarantine.command("list", short_help="List what is in quarantine.")
@limit_option
@as_json_option
@takes_settings()
def list_(loaded: Loaded, limit: int, *, as_json: bool) -> None:
    """List what is in quarantine, oldest first; --json shows the whole payloads."""
    from syncd.mirror.store import quarantine as mirror

    rows: Any = read(loaded.settings, lambda c: [dict(r._mapping) for r in mirror.unresolved(c, limit=limit)])  # noqa: SLF001
    columns = ("id", "session_id", "reason", "seen_at", "pass_id", "payload")
    print_rows(rows, columns, as_json=as_json, empty="nothing is in quarantine")


@quarantine.command(short_help="Read the items again.")
@as_json_option
@takes_settings()
def replay(loaded: Loaded, *, as_json: bool) -> None:
    """Read the items again, as this version of syncd can; those that it can read go into the mirror."""
    from syncd.clock import SystemClock
    from syncd.mirror.store.replay import replay as replay_all

    now = SystemClock().now()
    read_again, left = write(loaded.settings, lambda c: replay_all(c, now))
    if as_json:
        print_json({"resolved": read_again, "left": left})
    else:
        click.echo(f"{read_again} could be read now, {left} could not")
