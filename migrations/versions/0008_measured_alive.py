"""The measured time at which an unlisted session answered 200, and plain comments on PostgreSQL."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COMMENTS = {
    "elapsed_time": {
        "": "one row: the time between passes, measured without wall clocks",
    },
    "hold_sessions": {
        "session_key": "a session of the hold",
    },
    "mirror_identity": {
        "": "the tenant that this database mirrors, and whether it is a copy or was moved away",
        "moved_at": "when it was moved",
        "tenant_id": "the tenant, if the credentials name one",
    },
    "mirror_totals": {
        "": "one row: the end of the change feed, and counts that each change of a session updates",
    },
    "operations": {
        "": "the queue; any program may INSERT kind, the columns it needs, requested_by, requested_at and not_before",
        "attempts": "attempts so far; those of an outage do not count",
        "blocked_by": "the last earlier operation on the same key that is not over; null if there is none",
        "clock_at": "the clock when syncd last set next_attempt_at or lease_until; a clock below it was set back",
        "fence": "rises with each claim; only the holder of the current number can finish the operation",
        "last_error": "the last error, or the difference between an adopted session and the request",
        "lease_until": "when the claim expires",
        "lookups": "look-ups since then that found no session",
        "not_before": "the earliest time of the first attempt",
        "on_hold_at": "since when the operation waits for a release after a restore; null without a hold",
        "requested_at": "when it was requested",
        "requested_by": "the program or person that requested it; free text",
        "settle_machine": "the machine, since its last restart, whose clock settle_us was read from",
        "source_session_id": "the external id of the session to create, delete or update",
        "target_session_id": "the session that an operation by source id was found to mean, stored before a change is sent",
        "unknown_since": "when the answer to the last create was lost",
    },
    "operator_actions": {
        "": "the decisions of operators, each with the person and the time",
        "by": "the person: --by, or the user of the operating system",
        "subject": "the object of the action, such as operation 12 or pass 7",
    },
    "pages": {
        "": "the pages of the running pass and of the last complete one; a page with a known digest is not read again",
        "digest": "the first 16 bytes of the page's SHA-256, if the mirror holds exactly its content",
    },
    "passes": {
        "": "one row for each pass: a logical listing of all sessions, which can span restarts",
        "finished_at": "when it ended, in any state",
        "hold_id": "the hold that this pass opened or continued",
        "page_key": "the checkpoint: the key of the next page; null for the first page",
        "read_at": "when the last page was read; the sweep follows",
        "started_at": "when its first page was requested",
        "unchanged": "sessions without a change",
    },
    "quarantine": {
        "fingerprint": "identifies the same item in later passes",
        "pass_id": "the first pass with the item",
        "resolved_at": "when it was read, or no longer listed",
        "seen_at": "when it was first listed",
        "session_id": "the id of the session, if it could be read",
    },
    "session_versions": {
        "": "past versions; read the view chat_session_history",
        "change": "the change that made this version: created, updated, deleted or restored",
    },
    "sessions": {
        "absence_pass_id": "the last pass that counted a 404",
        "change": "the change that made this version: created, updated, deleted or restored",
        "missing_since": "since when complete passes have not listed it; null while it is listed",
        "observed_at": "when an operation or a look-up last showed it",
    },
    "source_sessions": {
        "": "external ids and their states; any program may INSERT source_session_id",
        "checked_at": "when its state was last confirmed",
        "note": "details for a person: the sessions in conflict, or why Albert cannot be asked for the id",
    },
    "writers": {
        "": "on PostgreSQL: shows whether a commit was applied whose answer was lost",
        "id": "the process; a random number that it draws at its start",
        "number": "its last transaction with a write",
        "written_at": "when that transaction was",
    },
}
"""The comment of each column by its table; that of the table itself has no name."""


def upgrade() -> None:
    """Add the column. Sessions that answered before it was there are requested again in the next pass."""
    op.add_column(
        "sessions",
        sa.Column("unlisted_alive_elapsed_ms", KEY, comment="elapsed_time.milliseconds at unlisted_alive_at"),
    )
    if op.get_context().dialect.name == "postgresql":
        for table, comments in COMMENTS.items():
            for column, text in comments.items():
                on = f'COLUMN {table}."{column}"' if column else f"TABLE {table}"
                quoted = text.replace("'", "''")
                op.execute(f"COMMENT ON {on} IS '{quoted}'")
