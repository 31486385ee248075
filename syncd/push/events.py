"""The one log event of each recorded attempt. `runner` calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syncd.push.outcomes import Dead, NotFound, Outcome, Retry, RetryReason, Succeeded, Unknown
from syncd.push.record import attempts_used

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.mirror.store.operation import Operation


def report(operation: Operation, outcome: Outcome, log: FilteringBoundLogger) -> None:
    """Log what became of an attempt at an operation."""
    facts: dict[str, Any] = {
        "kind": operation.kind,
        "attempts": attempts_used(operation, outcome),
        "status": outcome.status,
    }
    match outcome:
        case Succeeded():
            log.info("operation.succeeded", session_id=outcome.session_id, note=outcome.note, **facts)
        case Retry(reason=RetryReason.RETURNED):
            log.debug("operation.returned", reason=outcome.error, **facts)
        case Retry():
            log.warning("operation.retrying", error=outcome.error, reason=outcome.reason.value, **facts)
        case Unknown():
            log.warning("operation.unknown", error=outcome.error, reason=outcome.reason.value, **facts)
        case NotFound():
            log.info("operation.looked_up", lookups=operation.lookups + 1, **facts)
        case Dead():
            log.error("operation.dead", error=outcome.error, hint=f"syncd operations show {operation.id}", **facts)
