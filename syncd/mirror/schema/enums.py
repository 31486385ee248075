"""Names of the schema that more than one file needs, without SQLAlchemy, so that the command line starts fast.

The order is that in which they are shown. A test holds the states to what the tables allow.
"""

from syncd.records.enums import ACTIVE_STATES, LinkState, OperationState

OPERATIONS = tuple(state.value for state in OperationState)
SOURCES = tuple(state.value for state in LinkState)
ENDED = ("complete", "partial", "failed", "held")
"""The states that a pass ends in."""
CHANGES = ("inserted", "updated", "restored", "deleted")
"""The counts of a pass that show what it changed."""
PASS_COLUMNS = (
    "id", "state", "started_at", "finished_at", "pages", "seen", "inserted", "updated", "unchanged", "restored",
    "missing", "deleted", "quarantined", "error",
)  # fmt: skip
"""The columns of `passes` that users may rely on."""
PASS_SHOWN = (*PASS_COLUMNS, "reason")
"""The columns that `syncd status` and the status page read."""
OPERATION_SHOWN = (
    "id", "kind", "source_session_id", "session_id", "name", "parent_id", "requested_by", "requested_at", "not_before",
    "state", "attempts", "next_attempt_at", "last_error", "last_status", "result_session_id", "finished_at", "fence",
    "lease_until", "lease_owner", "target_session_id", "unknown_since", "lookups", "on_hold_at", "clock_at",
    "settle_machine", "settle_us", "settle_for",
)  # fmt: skip
"""The columns of `operations` that `syncd operations` reads; it computes `blocked_by` by itself."""
OPERATION_TIMES = (
    "requested_at", "not_before", "next_attempt_at", "finished_at", "lease_until", "unknown_since", "on_hold_at",
    "clock_at", "settle_for",
)  # fmt: skip
"""Those of them that are times."""
ACTIVE = f"state IN ({', '.join(repr(state.value) for state in ACTIVE_STATES)})"
"""The operations that are not over. The partial indexes and the statements that use them have this text in common."""
