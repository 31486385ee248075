"""`syncd export`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import as_json_option, print_json, read, say, takes_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from syncd.mirror.db.database import Connection
    from syncd.settings import Loaded


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format",
    "format_",
    type=click.Choice(("parquet", "csv", "jsonl")),
    required=True,
    help="parquet needs: pip install 'syncd[parquet]'.",
)
@click.option(
    "--escape-formulas",
    is_flag=True,
    help="In CSV, put ' before cells that a spreadsheet would take for a formula.",
)
@as_json_option
@takes_settings()
def export(loaded: Loaded, *, directory: Path, format_: Any, escape_formulas: bool, as_json: bool) -> None:  # noqa: ANN401
    """Write the mirror to files in DIR for other tools, all of one moment; a daemon may go on meanwhile.

    The files: chat_sessions, chat_sessions_all, chat_session_history, passes, operations and source_sessions, and
    syncd-export.json, which says of when they are. Files of an earlier export are replaced when all of the new ones
    are complete; files that syncd did not write are never touched.
    """
    from syncd.clock import SystemClock
    from syncd.files.exports import export as write_files
    from syncd.files.exports import plan

    planned = plan(directory, format_, escape_formulas=escape_formulas)
    with ExitStack() as stack:
        begin, advance = _progress(stack)

        def work(connection: Connection) -> dict[str, Any]:
            return write_files(connection, planned, now=SystemClock().now(), begin=begin, advance=advance)

        summary = read(loaded.settings, work)
    if as_json:
        print_json({"directory": str(directory), "format": format_, **summary})
        return
    for one in summary["files"]:
        click.echo(f"{directory / one['file']}  {one['rows']} rows")
    say(f"all of one moment; the last complete pass ended {summary['last_complete_pass_at'] or 'never'}")


def _progress(stack: ExitStack) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """Show a bar from the moment when the number of rows is known."""
    from syncd.cli.progress import bar

    shown: list[Callable[[int], None] | None] = []

    def begin(total: int) -> None:
        shown.append(stack.enter_context(bar("rows", total=total)))

    def advance(done: int) -> None:
        if shown and shown[0] is not None:
            shown[0](done)

    return begin, advance
