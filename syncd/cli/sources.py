"""`syncd sources`: shows external ids with their states, and adds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import (
    as_json_option,
    limit_option,
    print_json,
    print_rows,
    read,
    run,
    say,
    takes_settings,
    write,
)
from syncd.errors import UsageError
from syncd.logs import safe_text
from syncd.mirror.schema import enums

if TYPE_CHECKING:
    from syncd.records.ids import SourceId
    from syncd.settings import Loaded


@click.group()
def sources() -> None:
    """Show and add external source ids; the daemon finds the state of each."""


def _add(loaded: Loaded, ids: list[SourceId], *, as_json: bool) -> None:
    from syncd.mirror.store import sources as store

    added = write(loaded.settings, lambda c: store.add(c, ids), make=True)
    if as_json:
        print_json({"added": added, "known": len(ids) - added})
    else:
        click.echo(f"added {added}, known already {len(ids) - added}")


@sources.command(short_help="Make source ids known.")
@click.argument("ids", nargs=-1, required=True, metavar="S...")
@as_json_option
@takes_settings()
def add(loaded: Loaded, ids: tuple[SourceId, ...], *, as_json: bool) -> None:
    """Make source ids known, so that they are reconciled."""
    from syncd.files.imports import unsendable

    for source_id in ids:
        if (reason := unsendable(source_id)) is not None:
            raise UsageError(reason)
    _add(loaded, list(ids), as_json=as_json)


@sources.command("import", short_help="Make a file of source ids known.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@as_json_option
@takes_settings()
def import_(loaded: Loaded, file: Path, *, as_json: bool) -> None:
    """Make all source ids of a file known, or none: CSV, JSON Lines or a JSON array; - for standard input.

    The column or key is source_session_id; others are ignored. CSV can have commas, semicolons or tabs; the text is
    UTF-8, UTF-16 or UTF-32. Ids that differ from others only in white space, invisible characters or case are reported
    on standard error.
    """
    from syncd.files import imports
    from syncd.files.open_text import open_text
    from syncd.mirror.store import lookalikes
    from syncd.opening import read_before_it_is_made
    from syncd.records.ids import SourceId

    ids = imports.read_sources(open_text(file))
    rows = [{"place": place, "source_session_id": value} for place, value in ids]
    for lookalike in run(lambda: read_before_it_is_made(loaded.settings, lambda c: lookalikes.find(c, rows))):
        say(f"lookalike: {safe_text(str(lookalike))}")
    _add(loaded, [SourceId(value) for _, value in ids], as_json=as_json)


@sources.command("list")
@click.option("--state", type=click.Choice(enums.SOURCES), help="Only those in this state.")
@limit_option
@as_json_option
@takes_settings()
def list_(loaded: Loaded, state: str | None, limit: int, *, as_json: bool) -> None:
    """List source ids."""
    from syncd.mirror.store import sources as store

    rows: Any = read(loaded.settings, lambda c: store.listing(c, state=state, limit=limit))
    columns = ("source_session_id", "state", "session_id", "checked_at", "note")
    print_rows(rows, columns, as_json=as_json, empty="no source ids")
