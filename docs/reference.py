"""Write `docs/commands.md` from the commands themselves: `make docs`. A test fails when the two differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from syncd.cli import COMMANDS, cli

TARGET = Path(__file__).with_name("commands.md")
WIDTH = 100
INTRODUCTION = """\
# Commands

<!-- Written by `make docs` from what `--help` says; do not edit. -->

`syncd` is the same as `python -m syncd`. Data goes to standard output, everything else to standard error; with
`--json` standard output holds the JSON alone. Only `run` and `once` log, to standard output (`once --json`: to standard
error). Progress bars and colour are for terminals only. Characters that the encoding of a stream lacks are escaped.

| exit code | means |
| --- | --- |
| 0 | done |
| 1 | the work failed or needs a person: a failed or held pass, a dead operation |
| 2 | usage or settings, found before anything is contacted |
| 3 | the database cannot be used: not there, corrupt, not syncd's, a newer schema, held by another daemon |
| 130, 143 | interrupted by SIGINT or SIGTERM; `run` ends with 0 then |
"""


def render() -> str:
    """Return the whole page."""
    root = click.Context(
        cli, info_name="syncd", terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"]
    )
    parts = [INTRODUCTION]
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None  # noqa: S101 - it is one of them
        parts += _sections(command, name, root)
    return "\n".join(parts)


def _sections(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for inner, one in sorted(command.commands.items()):
            yield from _sections(one, inner, context)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
