"""`syncd browse`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from syncd.cli.common import run, say, takes_settings

if TYPE_CHECKING:
    from syncd.settings import Loaded


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="Loopback port; 0 for any."
)
@takes_settings()
def browse(loaded: Loaded, *, port: int) -> None:
    """Look at the live mirror in a browser: Datasette, read only, on loopback, until it is interrupted.

    It needs: pip install 'syncd[browse]'. It reads SQLite; for PostgreSQL use the tools that you have, see
    docs/reading.md.
    """
    from syncd.browse import NAME
    from syncd.browse.app import listen, make_app, require_datasette, serve
    from syncd.errors import UsageError
    from syncd.opening import database_backend, open_database

    file = database_backend(loaded.settings).file
    if file is None:
        raise UsageError("browse reads SQLite only; for PostgreSQL see docs/reading.md, or: syncd export")
    require_datasette()

    async def main() -> None:
        async with open_database(loaded.settings):
            pass  # it is there and at head
        with listen(port) as taken:
            say("the live mirror, read only; stop with Ctrl-C")
            click.echo(f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}")
            await serve(make_app(file), taken)

    run(main)
