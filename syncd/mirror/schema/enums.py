"""Names of the schema that more than one file needs, without SQLAlchemy, so that the command line starts fast.

The order is that in which they are shown. A test holds the states to what the tables allow.
"""

from syncd.records.enums import LinkState, OperationState

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
