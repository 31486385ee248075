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

<!-- Written by `make docs` from the output of `--help`; do not edit. -->

`syncd` is the same as `python -m syncd`. Data goes to standard output, everything else to standard error. With `--json`
standard output contains only the JSON. Only `run` and `once` log: to standard output, `once --json` to standard error.
Progress bars and colour are shown only on terminals. Characters that the encoding of a stream lacks are escaped.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the work failed or needs a person, for example a failed or held pass, or a dead operation |
| 2 | an error in the usage or the settings, including credentials of another tenant |
| 3 | the database cannot be used: missing, corrupt, of another program, of a newer schema, or held by another daemon |
| 130, 143 | interrupted by SIGINT or SIGTERM, except for `run`, which ends with 0 |

## Shell completion

The installed command `syncd` completes commands, options and their values. Add the line of your shell to its start-up
file:

```text
eval "$(_SYNCD_COMPLETE=bash_source syncd)"   # bash 4.4 or newer: ~/.bashrc
eval "$(_SYNCD_COMPLETE=zsh_source syncd)"    # zsh: ~/.zshrc, after compinit
_SYNCD_COMPLETE=fish_source syncd | source    # fish: ~/.config/fish/completions/syncd.fish
```
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
