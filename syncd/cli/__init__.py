"""The command line: one file for each noun. A command parses, calls and prints; it decides nothing.

`__main__` calls `main`. A command's module is imported when it is called: `syncd status` must not wait for the
libraries of the daemon.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from syncd.errors import SyncdError
from syncd.logs import escape_unencodable, safe_text

if TYPE_CHECKING:
    from syncd.daemon.signals import Signals

UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""The errors of a standard output on a full or broken disk."""
COMMANDS = {
    "run": "daemon",
    "once": "daemon",
    "enqueue": "enqueue",
    "sources": "sources",
    "operations": "operations",
    "deletions": "deletions",
    "quarantine": "quarantine",
    "tenant": "tenant",
    "status": "status",
    "doctor": "doctor",
    "migrate": "settings",
    "config": "settings",
    "healthcheck": "healthcheck",
    "backup": "backup",
    "restore": "restore",
    "prune": "prune",
    "export": "export",
    "browse": "browse",
    "migrate-store": "migrate_store",
    "sandbox": "sandbox",
    "demo": "demo",
}
"""Each command and the module of `syncd.cli` that contains it."""
SENTENCES = {"sandbox": "Run a stand-in Albert server on loopback."}
"""The sentence in the list of commands for one whose module takes long to import: its options are the server's own."""


class _Commands(click.Group):
    """A group that imports a command's module when the command is named."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """Return the commands in the order of their use."""
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"syncd.cli.{COMMANDS[name]}")
        return getattr(module, name.replace("-", "_"))  # type: ignore[no-any-return]

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and suggest one for a misspelled name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            close = get_close_matches(name, COMMANDS, 1)
            context.fail(f"No such command {name!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with its whole first sentence; click would cut it short."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, SENTENCES.get(name) or sentence(self.get_command(context, name))) for name in COMMANDS]
            )


def sentence(command: click.Command | None) -> str:
    """Return the first sentence of a command's help."""
    if command is None:
        return ""
    summary = command.short_help or " ".join((command.help or "").partition("\n\n")[0].split())
    return f"{summary.partition('. ')[0].rstrip('.')}."


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
    if wanted:
        from syncd.version import program_version

        click.echo(f"syncd {program_version()}")
        context.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: syncd demo. Settings in force: syncd config. The manual is README.md of the project.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Mirror Albert chat sessions into a local SQL database, and apply queued operations.

    Exit codes: 0 done; 1 the work failed or needs a person; 2 usage or settings; 3 the database cannot be used.
    """


def main(signals: Signals | None = None) -> None:
    """Run the command line and exit with the code that belongs to its outcome.

    Parameters
    ----------
    signals : Signals | None
        The signal handlers that the entry point has installed for `run` and `once`.
    """
    escape_unencodable(sys.stdout)
    escape_unencodable(sys.stderr)
    try:
        code = _run(signals)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has closed the pipe
        code = 1
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for output that Python still has to write
        text = "the output cannot be written, and the command may nevertheless have done its work"
        click.echo(f"error: {text}: {error.strerror}", err=True)
        code = 1
    sys.exit(code)


def _run(signals: Signals | None) -> int:
    try:
        code = cli.main(prog_name="syncd", standalone_mode=False, obj=signals)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except SyncdError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {safe_text(line)}", err=True)
        return error.exit_code
    return code if isinstance(code, int) else 0
