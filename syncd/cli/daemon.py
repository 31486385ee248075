"""`syncd run` and `syncd once`."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import click

from syncd.cli.common import READ_SETTINGS, as_json_option, force_option, print_json, say, takes_settings
from syncd.cli.common import run as run_async
from syncd.logs import safe_text

if TYPE_CHECKING:
    from syncd.daemon.once import Summary
    from syncd.settings import Loaded


@click.command(short_help="Run the daemon until SIGTERM or SIGINT.")
@force_option
@takes_settings(credentials=True)
@click.pass_context
def run(context: click.Context, loaded: Loaded, *, force: bool) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    It takes a pass over all sessions every SYNCD_PASS_INTERVAL seconds, keeps the source ids reconciled, and works the
    queue of operations. Logs go to standard output, one JSON object a line (SYNCD_LOG_FORMAT). SIGHUP reads the files
    of secrets and the log level again.
    """
    from syncd.daemon.failure import log_failure
    from syncd.daemon.process import prepare_process
    from syncd.daemon.run import run_daemon
    from syncd.daemon.shutdown import receive
    from syncd.daemon.signals import OF_COMMANDS
    from syncd.logs import configure
    from syncd.opening import database_backend

    settings = loaded.settings
    log = configure(level=settings.syncd_log_level, style=settings.syncd_log_format)
    prepare_process(database_backend(settings).file)

    async def main() -> None:
        with receive(context.obj, OF_COMMANDS["run"]) as received:
            await run_daemon(context.meta[READ_SETTINGS], loaded, received, log, force=force)

    with log_failure(log, style=settings.syncd_log_format, stream=sys.stdout):
        run_async(main)


@click.command(short_help="Do one cycle to its end, and exit.")
@click.option("--dry-run", is_flag=True, help="Report what a pass would change; write and send nothing.")
@force_option
@as_json_option
@takes_settings(credentials=True)
@click.pass_context
def once(context: click.Context, loaded: Loaded, *, as_json: bool, force: bool, dry_run: bool) -> None:
    """Do one cycle to its end: drain the queue as far as it is due, one pass, reconcile; then exit.

    Exits 1 when the pass is not complete, when Albert refuses the credentials or does not answer for a source id, or
    when an operation is dead.

    With --dry-run it reads the listing, compares it with the mirror, asks about sessions that are not listed, and
    prints what a pass would change. It works beside a running daemon.
    """
    if dry_run:
        from syncd.cli.dry_run import report

        report(loaded.settings, as_json=as_json, force=force)
        return
    from syncd.cli.progress import page_progress
    from syncd.daemon.failure import log_failure
    from syncd.daemon.once import problems, run_once
    from syncd.daemon.process import prepare_process
    from syncd.daemon.shutdown import StopSignals, receive, unless_stopped
    from syncd.daemon.signals import OF_COMMANDS
    from syncd.logs import configure
    from syncd.opening import database_backend

    settings = loaded.settings
    prepare_process(database_backend(settings).file)
    with page_progress() as on_page:
        stream = sys.stderr if as_json else sys.stdout
        log = configure(level=settings.syncd_log_level, style=settings.syncd_log_format, stream=stream)

        async def main() -> Summary | signal.Signals:
            with receive(context.obj, OF_COMMANDS["once"]) as received:
                return await unless_stopped(
                    StopSignals(received), lambda: run_once(settings, log, on_page, force=force)
                )

        with log_failure(log, style=settings.syncd_log_format, stream=stream):
            summary = run_async(main)
    if isinstance(summary, signal.Signals):
        say("interrupted; the next cycle continues from here")
        context.exit(128 + summary)
    cycle_problems = problems(summary)
    if as_json:
        print_json({**summary, "problems": cycle_problems})
    else:
        for problem in cycle_problems:
            say(f"error: {safe_text(problem)}")
    context.exit(1 if cycle_problems else 0)
