"""Shared parts of commands: common options, access to the database, and output as tables or JSON."""

from __future__ import annotations

import functools
import getpass
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from syncd import settings as settings_module
from syncd.logs import encodable, safe_text

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection, Database
    from syncd.settings import Settings

T = TypeVar("T")

ROW_ID = click.IntRange(1, 2**63 - 1)
"""The range of a row's id in the database."""
LONGEST_CELL = 60
"""Characters of a cell in a table for people."""
READ_SETTINGS = "syncd.read_settings"
"""The key of click's `Context.meta` with the function that reads the command's settings again."""


env_file_option = click.option(
    "--env-file",
    "env_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read settings from this file; repeatable, later files win, the environment wins over all.",
)


def takes_settings(*, credentials: bool = False) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a command `--env-file`, and the `Loaded` settings as its first argument.

    Parameters
    ----------
    credentials : bool
        Whether the command talks to Albert, so that missing credentials end it before it begins.
    """

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        @env_file_option
        @functools.wraps(command)
        def wrapped(*args: Any, env_files: tuple[Path, ...], **kwargs: Any) -> T:  # noqa: ANN401 - click's
            pipes: dict[Path, str] = {}

            def read_settings() -> settings_module.Loaded:
                return settings_module.load(os.environ, env_files, credentials=credentials, pipes=pipes)

            click.get_current_context().meta[READ_SETTINGS] = read_settings
            return command(read_settings(), *args, **kwargs)

        return wrapped

    return decorate


as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on standard output."
)
limit_option = click.option(
    "--limit", type=click.IntRange(1, 2**31), metavar="N", default=100, show_default=True, help="Show at most N."
)


def operating_system_user() -> str:
    """Return the name of the user who runs the command, or its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _check_person(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    """Refuse a name that is empty, or that no database can hold; the name of the user may be such a name.

    Raises
    ------
    BadParameter
        It is refused.
    """
    from syncd.records.tolerant_json import sendable

    if not name.strip():
        raise click.BadParameter("it is empty; write the name of the person who decided")
    if not sendable(name):
        raise click.BadParameter(f"{name!a} holds text that no database can hold; write another name")
    return name


by_option = click.option(
    "--by",
    metavar="NAME",
    callback=_check_person,
    default=operating_system_user,
    show_default="the user of the operating system",
    help="Record this name as the person who decided.",
)


class FileMode(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """Permission bits in octal digits, such as 0640; the owner must be able to read the file."""

    name = "mode"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:  # noqa: ANN401
        """Read the digits."""
        text = str(value)
        if not re.fullmatch("0?[0-7]{3}", text) or not int(text, 8) & 0o400:
            self.fail(
                f"{text!r} is not a mode that its owner can read; write octal digits, such as 0640", param, context
            )
        return int(text, 8)


mode_option = click.option(
    "--mode",
    type=FileMode(),
    metavar="MODE",
    default=None,
    help="The mode of the files, such as 0640. Without it, an existing file keeps its mode and a new one gets 0600.",
)
force_option = click.option(
    "--force", is_flag=True, help="Act on this database although migrate-store moved it to another one."
)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run an async function to its end."""
    import anyio

    return anyio.run(work)


def read(settings: Settings, work: Callable[[Connection], T]) -> T:
    """Read from the mirror, which must be there."""
    return _with_database(settings, work, make=False, writes=False)


def write(settings: Settings, work: Callable[[Connection], T], *, make: bool = False, force: bool = False) -> T:
    """Write to the mirror in one transaction.

    In a backup that was not started yet, the open operations are put on hold first. Operations that this command queues
    are not.

    Parameters
    ----------
    make : bool
        Make the database if it does not exist.
    force : bool
        Write to a database although `migrate-store` moved its content to another one.

    Raises
    ------
    DatabaseUnusableError
        The database was moved, or cannot be used.
    TenantMismatchError
        The settings name another tenant than the database mirrors.
    """
    from syncd.mirror.db.shared_clock import read_clock
    from syncd.mirror.store import identity, restored
    from syncd.tenant import explicitly_named_identity, require_active

    named = explicitly_named_identity(settings)

    async def inspect(database: Database) -> None:
        """Check before the schema is migrated, too."""
        require_active(await database.read(identity.read_any_revision), named, force=force)

    def checked(connection: Connection) -> T:
        require_active(identity.read(connection), named, force=force)
        restored.hold_operations_of_copy(connection, read_clock(connection))
        return work(connection)

    return _with_database(settings, checked, make=make, writes=True, inspect=inspect)


def _with_database(
    settings: Settings,
    work: Callable[[Connection], T],
    *,
    make: bool,
    writes: bool,
    inspect: Callable[[Database], Awaitable[None]] | None = None,
) -> T:
    from syncd.mirror.db.retries import Retries
    from syncd.opening import COMMAND_BUSY_TIMEOUT, open_database

    def tell(reason: str) -> None:
        say(f"waiting for at most {COMMAND_BUSY_TIMEOUT:g} seconds: {safe_text(reason)}")

    async def main() -> T:
        retries = Retries(COMMAND_BUSY_TIMEOUT, tell)
        async with open_database(
            settings, make=make, retries=retries, inspect=inspect, reads_only=not writes
        ) as database:
            return await (database.write(work) if writes else database.read(work))

    return run(main)


def plain(value: object) -> object:
    """Convert a value of a row to a type of JSON."""
    if isinstance(value, datetime):
        from syncd.clock import utc_text

        return utc_text(value)
    return value


def print_json(data: object) -> None:
    """Print JSON for programs: ASCII, so that no value can break a line or a terminal."""
    click.echo(json.dumps(data, default=plain, indent=2))


def print_rows(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    empty: str = "nothing",
    longest: int = LONGEST_CELL,
) -> None:
    """Print rows as a table for people, with cells of at most `longest` characters, or as JSON for programs."""
    listed = [dict(row) for row in rows]
    if as_json:
        print_json(listed)
        return
    if not listed:
        click.echo(empty)
        return
    table = [[_cell(row.get(name), longest) for name in columns] for row in listed]
    widths = [max(len(name), *(len(row[place]) for row in table)) for place, name in enumerate(columns)]
    for line in ([name.upper() for name in columns], *table):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object, longest: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = safe_text(str(value))
    return encodable(text if len(text) <= longest else f"{text[: longest - 1]}…", sys.stdout)


def say(text: str) -> None:
    """Print a message for the user on standard error, so that it is not mixed with data."""
    click.echo(text, err=True)
