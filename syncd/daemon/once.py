"""The work of `syncd once`: drain the queue, take one pass, reconcile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from syncd.app import logged_retries, open_flows
from syncd.daemon.facts import log_database
from syncd.mirror.read import views
from syncd.mirror.store import operation_views
from syncd.opening import COMMAND_BUSY_TIMEOUT
from syncd.status.health import dead_operations

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.settings import Settings

Summary = dict[str, Any]
"""The pass with its state and error, the counts of operations by state, and what remained undone."""


async def run_once(
    settings: Settings,
    log: FilteringBoundLogger,
    on_page: Callable[[Mapping[str, int]], None] | None,
    *,
    force: bool = False,
) -> Summary:
    """Do one cycle to its end; operations and source ids that are not due are not waited for.

    Raises
    ------
    DatabaseUnusableError
        A daemon holds the database or takes the passes, or the database was moved or cannot be used.
    TenantMismatchError
        The settings, or a token, name another tenant than the database mirrors.
    """
    retries = logged_retries(COMMAND_BUSY_TIMEOUT, log)
    async with open_flows(settings, command="once", log=log, retries=retries, force=force, on_page=on_page) as flows:
        await log_database(flows.database, log)
        await flows.leadership.require()
        await flows.push.drain()
        outcome = await flows.pull.run()
        if flows.push.in_doubt:  # the pass has asked Albert again
            await flows.push.drain()
        await flows.mirror_folders(outcome.state)
        unanswered = await flows.reconcile.run()
        flows.tenant.require()
        counts: Mapping[str, int] = await flows.database.read(operation_views.counts)
        row = await flows.database.read(lambda connection: views.one_pass(connection, outcome.pass_id))
        return {
            "pass": {**row, "state": outcome.state, "error": outcome.error},
            "operations": dict(counts),
            "queue_refused": flows.push.refused,
            "sources_unanswered": unanswered,
        }


def problems(summary: Summary) -> list[str]:
    """Return why a cycle did not succeed in everything, each with what to do."""
    ended = summary["pass"]
    command = f"see: syncd deletions show {ended['id']}" if ended["state"] == "held" else "run: syncd doctor"
    reasons = []
    if ended["state"] != "complete":
        reasons.append(f"pass {ended['id']} is {ended['state']}: {ended['error']}; {command}")
    if summary["queue_refused"]:
        reasons.append(f"the queue is paused: {summary['queue_refused']}; run: syncd doctor")
    if dead := summary["operations"]["dead"]:
        reasons.append(str(dead_operations(dead)))
    if unanswered := summary["sources_unanswered"]:
        reasons.append(f"Albert did not answer for {unanswered} source ids; the next cycle sends the requests again")
    return reasons
