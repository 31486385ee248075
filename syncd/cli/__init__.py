"""The command line: one file a noun; a command parses, calls and prints, and decides nothing.

A command's module is imported when it is called: `syncd status` must not wait for what only the daemon needs.
"""

from __future__ import annotations

import importlib
import sys

import click

from syncd.errors import SyncdError
from syncd.logs import escape_unencodable, safe_text

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
"""Each command and the module of `syncd.cli` that has it."""
SENTENCES = {"sandbox": "Run a stand-in Albert server on loopback."}
"""What the list of commands says of one whose module takes long to import: its options are the server's own."""


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

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with its whole first sentence; click would cut it short."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, SENTENCES.get(name) or sentence(self.get_command(context, name))) for name in COMMANDS]
            )


def sentence(command: click.Command | None) -> str:
    """Return what the list of commands says of one."""
    if command is None:
        return ""
    words = command.short_help or " ".join((command.help or "").partition("\n\n")[0].split())
    return f"{words.partition('. ')[0].rstrip('.')}."


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: syncd demo. Settings: config/syncd.env, docs/settings.md.",
)
@click.version_option(package_name="syncd", message="syncd %(version)s")
def cli() -> None:
    """Mirror Albert chat sessions into a local SQL database, and apply queued creates and deletes.

    Exit codes: 0 done; 1 the work failed or needs a person; 2 usage or settings; 3 the database cannot be used.
    """


def main() -> None:
    """Run the command line and exit with the code that `interface.md` gives the outcome."""
    escape_unencodable(sys.stdout)
    escape_unencodable(sys.stderr)
    try:
        code = cli.main(prog_name="syncd", standalone_mode=False)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 130
    except SyncdError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {safe_text(line)}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; nothing is left to say, or to whom
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
