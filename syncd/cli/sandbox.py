"""`syncd sandbox`: a stand-in Albert server for trials."""

from __future__ import annotations

import json
import signal
import types
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

from syncd.cli.common import env_file_option, run
from syncd.errors import UsageError
from syncd.sandbox import Faults, Habits, Sandbox, serve
from syncd.sandbox.faults import FAULT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable


class JsonValue(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A value that is written as JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:  # noqa: ANN401
        """Read the value."""
        try:
            return json.loads(value)
        except ValueError:
            self.fail(f'{value!r} is not JSON, such as {{"name": "without an id"}}', param, context)


def _options(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make an option of each field; a list is an option that can be repeated."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for field in reversed(fields(kind)):
            option = _option(field)
            command = option(command) if option is not None else command
        return command

    return decorate


def _option(field: Field[Any]) -> Callable[[Callable[..., None]], Callable[..., None]] | None:
    name, kind, help_text = f"--{field.name.replace('_', '-')}", field.type, field.metadata.get("help", "")
    if get_origin(kind) in {Union, types.UnionType}:
        kind = next(member for member in get_args(kind) if member is not type(None))
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        return click.option(
            name, type=click.Choice(choices), default=str(field.default), show_default=True, help=help_text
        )
    if kind is bool:
        return click.option(name, is_flag=True, default=field.default, help=help_text)
    if kind is str:
        return click.option(name, default=field.default, show_default=True, metavar="TEXT", help=help_text)
    if get_origin(kind) is list:
        item = JsonValue() if get_args(kind) == (Any,) else str
        return click.option(name, type=item, multiple=True, help=f"{help_text} Repeatable.")
    if kind in {int, float}:
        shown = field.default is not None
        return click.option(name, type=_range(field, kind), default=field.default, show_default=shown, help=help_text)
    return None


def _range(field: Field[Any], kind: type[Any]) -> click.ParamType[Any]:
    if kind is int:
        return click.IntRange(1)
    return click.FloatRange(0, 1 if field.name in FAULT_NAMES else None)


def _filled(kind: type[Any], options: dict[str, Any]) -> Any:  # noqa: ANN401 - Habits or Faults
    """Fill a dataclass from options; of a choice among numbers, the number that the text stands for."""
    chosen = {}
    for field in fields(kind):
        if field.name in options:
            choices = (
                {str(choice): choice for choice in get_args(field.type)} if get_origin(field.type) is Literal else {}
            )
            value = options[field.name]
            chosen[field.name] = list(value) if get_origin(field.type) is list else choices.get(value, value)
    return kind(**chosen)


@click.command(short_help="Run a stand-in Albert server on loopback.")
@env_file_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="Loopback port; 0 for any."
)
@click.option("--sessions", type=click.IntRange(0), default=2000, show_default=True, help="Sessions to begin with.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same sessions.")
@_options(Habits)
@_options(Faults)
def sandbox(
    env_files: tuple[Path, ...],  # noqa: ARG001 - taken as by every command; the sandbox has no settings
    port: int,
    sessions: int,
    seed: int,
    **options: Any,  # noqa: ANN401 - generated options
) -> None:
    """Run a stand-in Albert server on loopback until it is interrupted.

    Its habits are everything that is not known of the real server; its faults are chances from 0 to 1. Both can be
    changed while it runs: PATCH /_sandbox/habits and /_sandbox/faults. GET /_sandbox/effects
    returns what was really done.
    """
    import anyio

    habits, faults = _filled(Habits, options), _filled(Faults, options)

    async def main() -> None:
        async with serve(Sandbox(sessions, seed=seed, habits=habits, faults=faults), port=port) as server:
            click.echo(f"Albert's stand-in with {sessions} sessions; use it with:", err=True)
            click.echo(f"ALBERT_BASE_URL={server.url}\nALBERT_TOKEN={server.token}")
            pair = f"ALBERT_CLIENT_ID={server.client_id} ALBERT_CLIENT_SECRET={server.client_secret}"
            click.echo(f"or instead of the token: {pair}", err=True)
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for _ in signals:
                    return

    try:
        run(main)
    except OSError as error:
        raise UsageError(f"cannot listen on port {port}: {error.strerror or error}; choose another --port") from error
