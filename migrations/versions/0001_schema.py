"""The first schema: tables, the analysts' views, and the triggers that welcome rows from other programs.

The columns that nearly every query of the views reads are in front: PostgreSQL reads a row up to the last column that a
query needs. Nothing depends on the order: databases of before have these columns further back, and answer more slowly.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration imports nothing from the package: it must do the same in every later release.
MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON_TEXT = sa.Text().with_variant(postgresql.JSONB(), "postgresql")

CONTENT = (
    "id, name, parent_id, source_session_id, status, kind, automation_id, automation_run_id, last_message_at, "
    "created_by, created_by_name, created_at, updated_by, updated_by_name, updated_at, extra"
)
VERSION_CONTENT = ", ".join(f"v.{name}" for name in CONTENT.split(", "))

AGE = {
    "sqlite": "round((julianday('now') - julianday(p.finished_at)) * 86400.0, 3)",
    "postgresql": "round(extract(epoch from now() - p.finished_at)::numeric, 3)::double precision",
}

VIEWS = (
    f"""
CREATE VIEW chat_sessions AS
SELECT {CONTENT}, first_seen_at, valid_from AS changed_at
FROM sessions
WHERE deleted_at IS NULL
""",
    f"""
CREATE VIEW chat_sessions_all AS
SELECT {CONTENT}, first_seen_at, valid_from AS changed_at, missing_since, deleted_at
FROM sessions
""",
    f"""
CREATE VIEW chat_session_history AS
SELECT v.id AS session_id, v.change, v.valid_from, v.valid_to, v.pass_id, {VERSION_CONTENT},
       s.first_seen_at, v.valid_from AS changed_at
FROM session_versions AS v JOIN sessions AS s ON s.key = v.session_key
UNION ALL
SELECT id, change, valid_from, NULL, pass_id, {CONTENT}, first_seen_at, valid_from
FROM sessions
""",
)

FRESHNESS = """
CREATE VIEW mirror_freshness AS
SELECT p.finished_at AS last_complete_pass_at,
       {age} AS age_seconds,
       (SELECT count(*) FROM sessions WHERE deleted_at IS NULL) AS live_sessions,
       (SELECT count(*) FROM sessions WHERE deleted_at IS NOT NULL) AS deleted_sessions,
       (SELECT count(*) FROM sessions WHERE missing_since IS NOT NULL AND deleted_at IS NULL) AS missing_sessions,
       (SELECT count(*) FROM quarantine WHERE resolved_at IS NULL) AS quarantined_items,
       (SELECT count(*) FROM operations WHERE state = 'pending') AS operations_pending,
       (SELECT count(*) FROM operations WHERE state = 'unknown') AS operations_unknown,
       (SELECT count(*) FROM operations WHERE state = 'dead') AS operations_dead,
       (SELECT max(h.id) FROM passes AS h
        WHERE h.state = 'held' AND h.decision IS NULL AND h.id > coalesce(p.id, 0)) AS held_pass_id
FROM (SELECT 1 AS one) AS always
LEFT JOIN passes AS p ON p.id = (SELECT max(id) FROM passes WHERE state = 'complete')
"""

DIGITS = "[0-9]"
CANONICAL = f"{DIGITS * 4}-{DIGITS * 2}-{DIGITS * 2}T{DIGITS * 2}:{DIGITS * 2}:{DIGITS * 2}.{DIGITS * 6}Z"


def _sqlite_canonical(column: str) -> str:
    """Return the condition that a time is one, in the form that sorts."""
    seconds = f"substr(NEW.{column}, 1, 19)"  # SQLite rounds what comes behind them
    same = f"{seconds} = coalesce(strftime('%Y-%m-%dT%H:%M:%S', {seconds}, '+0 days'), '')"
    return f"(NEW.{column} GLOB '{CANONICAL}' AND {same})"


def _sqlite_own_time(column: str) -> str:
    """Refuse a time of the daemon's own that it could not read back: one such row would stop the whole queue."""
    return f"""
CREATE TRIGGER operations_{column}_is_ours BEFORE INSERT ON operations
WHEN NEW.{column} IS NOT NULL AND (NEW.{column} < '0001' OR NOT {_sqlite_canonical(column)})
BEGIN
    SELECT RAISE(ABORT, '{column} is written by syncd alone');
END
"""


def _sqlite_time(column: str, also: str = "") -> tuple[str, str]:
    """Refuse what is no time, and bring what is into the one form that sorts.

    Without the modifier SQLite gives a 30th of February and an hour 24 back as they are, and with it as the day after;
    years before 1 are times to SQLite and to nobody else here.
    """
    read = f"strftime('%Y-%m-%dT%H:%M:%f', NEW.{column}, '+0 days')"
    day = f"substr(NEW.{column}, 1, 10)"  # all of it: SQLite takes "now", a time without a day and a Julian day, too
    no_day = f"{day} <> coalesce(strftime('%Y-%m-%d', {day}, '+0 days'), '')"
    utc = f"CASE WHEN {_sqlite_canonical(column)} THEN NEW.{column} ELSE {read} || '000Z' END"
    return (
        f"""
CREATE TRIGGER operations_{column}_is_a_time BEFORE INSERT ON operations
WHEN NEW.{column} IS NOT NULL AND (coalesce({read}, '') < '0001' OR {no_day})
BEGIN
    SELECT RAISE(ABORT, '{column} is not a time such as 2026-01-31T12:00:00Z');
END
""",
        f"""
CREATE TRIGGER operations_{column}_is_utc AFTER INSERT ON operations
WHEN NEW.{column} IS NOT NULL{(also and " ") or f" AND NOT {_sqlite_canonical(column)}"}
BEGIN
    UPDATE operations SET {column} = {utc}{also and f", {also} = {utc}"} WHERE id = NEW.id;
END
""",
    )


SQLITE_TRIGGERS = (
    *_sqlite_time("requested_at"),
    *_sqlite_time("not_before", also="next_attempt_at"),
    *map(_sqlite_own_time, ("next_attempt_at", "finished_at", "lease_until", "unknown_since")),
    # NOT EXISTS and not OR IGNORE: the conflict clause of the statement that fires a trigger overrides the trigger's.
    """
CREATE TRIGGER operations_name_a_source AFTER INSERT ON operations
WHEN NEW.source_session_id IS NOT NULL
BEGIN
    INSERT INTO source_sessions (source_session_id)
    SELECT NEW.source_session_id
    WHERE NOT EXISTS (SELECT 1 FROM source_sessions WHERE source_session_id = NEW.source_session_id);
END
""",
)

POSTGRESQL_TRIGGERS = (
    # Whoever inserts need neither have the schema in the search_path nor any right to source_sessions. Only what another
    # program wants done rings the bell: commits that notify wait for each other in PostgreSQL.
    """
CREATE FUNCTION syncd_operations_inserted() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO %I.source_sessions (source_session_id) SELECT DISTINCT source_session_id FROM fresh '
        'WHERE source_session_id IS NOT NULL ORDER BY 1 ON CONFLICT DO NOTHING', TG_TABLE_SCHEMA);
    PERFORM pg_notify('syncd', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME);
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER operations_inserted AFTER INSERT ON operations
REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION syncd_operations_inserted()
""",
    """
CREATE FUNCTION syncd_operation_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.next_attempt_at := coalesce(NEW.next_attempt_at, NEW.not_before);
    RETURN NEW;
END
$$
""",
    "CREATE TRIGGER operations_due BEFORE INSERT ON operations FOR EACH ROW EXECUTE FUNCTION syncd_operation_due()",
    """
CREATE FUNCTION syncd_wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('syncd', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME);
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER operations_wake_again AFTER UPDATE OF state ON operations
FOR EACH ROW WHEN (OLD.state IN ('dead', 'pending') AND NEW.state IN ('pending', 'cancelled') AND OLD.state <> NEW.state)
EXECUTE FUNCTION syncd_wake()
""",
    """
CREATE TRIGGER source_sessions_wake AFTER INSERT ON source_sessions
FOR EACH ROW WHEN (NEW.state = 'unresolved') EXECUTE FUNCTION syncd_wake()
""",
)


# --- tables begin
def upgrade() -> None:
    """Make the tables, the views and the triggers."""
    now = {"sqlite": "(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')", "postgresql": "now()"}
    dialect = op.get_context().dialect.name
    op.create_table(
        "held_sessions",
        sa.Column("pass_id", KEY, autoincrement=False, nullable=False, comment="the held pass"),
        sa.Column("session_key", KEY, autoincrement=False, nullable=False, comment="a session that would go"),
        sa.PrimaryKeyConstraint("pass_id", "session_key", name=op.f("pk_held_sessions")),
        comment="the sessions that a held sweep would have made tombstones of",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "operations",
        sa.Column(
            "id", KEY, sa.Identity(), nullable=False, comment="the operation; operations on one key run in this order"
        ),
        sa.Column("kind", sa.Text(), nullable=False, comment="create or delete"),
        sa.Column(
            "source_session_id",
            sa.Text(),
            nullable=True,
            comment="the external id: what a create makes sure of, or what to delete",
        ),
        sa.Column("session_id", sa.Text(), nullable=True, comment="the session to delete"),
        sa.Column("name", sa.Text(), nullable=True, comment="the name to create with"),
        sa.Column("parent_id", sa.Text(), nullable=True, comment="the folder to create in"),
        sa.Column("requested_by", sa.Text(), nullable=True, comment="whoever wants it; free text"),
        sa.Column(
            "requested_at",
            MOMENT,
            server_default=sa.text(now[dialect]),
            nullable=False,
            comment="when it was asked for",
        ),
        sa.Column("not_before", MOMENT, nullable=True, comment="do not begin before this moment"),
        sa.Column(
            "state",
            sa.Text(),
            server_default="pending",
            nullable=False,
            comment="pending, running, unknown, succeeded, dead, cancelled",
        ),
        sa.Column(
            "attempts", sa.Integer(), server_default="0", nullable=False, comment="attempts that were begun and count"
        ),
        sa.Column("next_attempt_at", MOMENT, nullable=True, comment="when it is due again"),
        sa.Column(
            "last_error",
            sa.Text(),
            nullable=True,
            comment="what went wrong last, or what an adopted session has different",
        ),
        sa.Column("last_status", sa.Integer(), nullable=True, comment="the HTTP status of the last answer"),
        sa.Column(
            "result_session_id", sa.Text(), nullable=True, comment="the session that was created, adopted or deleted"
        ),
        sa.Column("finished_at", MOMENT, nullable=True, comment="when it became succeeded, dead or cancelled"),
        sa.Column(
            "fence",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="rises with each claim; who finishes must hold it",
        ),
        sa.Column("lease_until", MOMENT, nullable=True, comment="the claim is good until this moment"),
        sa.Column("lease_owner", sa.Text(), nullable=True, comment="the daemon that holds the claim"),
        sa.Column(
            "target_session_id",
            sa.Text(),
            nullable=True,
            comment="what a delete by source id was found to mean, kept before it is sent",
        ),
        sa.Column("unknown_since", MOMENT, nullable=True, comment="when the answer of the last create was lost"),
        sa.Column(
            "lookups",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="look-ups since then that found nothing",
        ),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_operations_finished"),
        ),
        sa.CheckConstraint(
            "kind <> 'create' OR (source_session_id IS NOT NULL AND name IS NOT NULL AND session_id IS NULL)",
            name=op.f("ck_operations_create_needs_source_and_name"),
        ),
        sa.CheckConstraint(
            "kind <> 'delete' OR (session_id IS NULL) <> (source_session_id IS NULL)",
            name=op.f("ck_operations_delete_needs_one_id"),
        ),
        sa.CheckConstraint("kind IN ('create', 'delete')", name=op.f("ck_operations_kind")),
        sa.CheckConstraint("name <> ''", name=op.f("ck_operations_name")),
        sa.CheckConstraint("session_id NOT IN ('', '.', '..')", name=op.f("ck_operations_session_id")),
        sa.CheckConstraint("source_session_id NOT IN ('', '.', '..')", name=op.f("ck_operations_source_session_id")),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'unknown', 'succeeded', 'dead', 'cancelled')",
            name=op.f("ck_operations_state"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_operations_attempts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
        comment="the queue; any program may INSERT kind, what the kind needs, requested_by, requested_at and not_before",
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        "ix_operations_active_session",
        "operations",
        ["session_id", "id"],
        unique=False,
        sqlite_where=sa.text("state IN ('pending', 'running', 'unknown', 'dead')"),
        postgresql_where=sa.text("state IN ('pending', 'running', 'unknown', 'dead')"),
    )
    op.create_index(
        "ix_operations_active_source",
        "operations",
        ["source_session_id", "id"],
        unique=False,
        sqlite_where=sa.text("state IN ('pending', 'running', 'unknown', 'dead')"),
        postgresql_where=sa.text("state IN ('pending', 'running', 'unknown', 'dead')"),
    )
    op.create_index("ix_operations_state", "operations", ["state", "next_attempt_at", "id"], unique=False)
    op.create_index(
        "ix_operations_deleted",
        "operations",
        ["finished_at", "result_session_id"],
        unique=False,
        sqlite_where=sa.text("kind = 'delete' AND state = 'succeeded'"),
        postgresql_where=sa.text("kind = 'delete' AND state = 'succeeded'"),
    )
    op.create_table(
        "pages",
        sa.Column("pass_id", KEY, autoincrement=False, nullable=False, comment="the pass that read the page"),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False, comment="counts the pages from 1"),
        sa.Column("next_key", sa.Text(), nullable=True, comment="the key that the page gave for the next one"),
        sa.Column(
            "session_keys",
            sa.LargeBinary(),
            nullable=False,
            comment="the keys of the sessions on it, packed",
        ),
        sa.Column(
            "quarantine_ids",
            sa.LargeBinary(),
            nullable=False,
            comment="the quarantine rows of it, packed",
        ),
        sa.Column(
            "digest",
            sa.LargeBinary(),
            nullable=True,
            comment="SHA-256 of the page's bytes, its first 16, when the mirror holds just what it says",
        ),
        sa.Column(
            "versions", sa.Integer(), nullable=False, comment="the sum of the versions of its sessions at that time"
        ),
        sa.PrimaryKeyConstraint("pass_id", "number", name=op.f("pk_pages")),
        comment="the pages of the running pass and of the last complete one: what was seen and need not be read again",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "passes",
        sa.Column("id", KEY, sa.Identity(), nullable=False, comment="the pass"),
        sa.Column(
            "state",
            sa.Text(),
            server_default="running",
            nullable=False,
            comment="running, complete, partial, failed or held",
        ),
        sa.Column("started_at", MOMENT, nullable=False, comment="when its first page was asked for"),
        sa.Column("finished_at", MOMENT, nullable=True, comment="when it ended, in whatever way"),
        sa.Column("pages", sa.Integer(), server_default="0", nullable=False, comment="pages read"),
        sa.Column(
            "seen",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="distinct sessions with a readable id, quarantined ones included",
        ),
        sa.Column("inserted", sa.Integer(), server_default="0", nullable=False, comment="sessions that were new"),
        sa.Column("updated", sa.Integer(), server_default="0", nullable=False, comment="sessions that had changed"),
        sa.Column(
            "unchanged", sa.Integer(), server_default="0", nullable=False, comment="sessions that were as before"
        ),
        sa.Column(
            "restored",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="deleted sessions that were listed again",
        ),
        sa.Column(
            "missing",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="live sessions that this pass did not see",
        ),
        sa.Column(
            "deleted",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="sessions that this pass made tombstones of",
        ),
        sa.Column(
            "quarantined", sa.Integer(), server_default="0", nullable=False, comment="items that could not be read"
        ),
        sa.Column("error", sa.Text(), nullable=True, comment="why it is partial, failed or held"),
        sa.Column(
            "page_key",
            sa.Text(),
            nullable=True,
            comment="the checkpoint: the key of the page to ask for next; null for the first",
        ),
        sa.Column(
            "read_at",
            MOMENT,
            nullable=True,
            comment="when the last page had been read; what follows is the sweep",
        ),
        sa.Column(
            "without_id", sa.Integer(), server_default="0", nullable=False, comment="items without a readable id"
        ),
        sa.Column(
            "candidates_of", KEY, nullable=True, comment="the held pass whose candidates are this one's, to the last"
        ),
        sa.Column(
            "fence",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="rises each time the pass is taken up; who writes to it must hold it",
        ),
        sa.Column("decision", sa.Text(), nullable=True, comment="approved or rejected by an operator, when held"),
        sa.Column("decided_at", MOMENT, nullable=True, comment="when the operator decided"),
        sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name=op.f("ck_passes_finished")),
        sa.CheckConstraint("decision IN ('approved', 'rejected')", name=op.f("ck_passes_decision")),
        sa.CheckConstraint(
            "state IN ('running', 'complete', 'partial', 'failed', 'held')", name=op.f("ck_passes_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passes")),
        comment="one row a pass: one logical listing of every session, which may span restarts",
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        "uq_passes_running",
        "passes",
        ["state"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", KEY, sa.Identity(), nullable=False, comment="the item"),
        sa.Column("pass_id", KEY, nullable=True, comment="the pass that met it first"),
        sa.Column("session_id", sa.Text(), nullable=True, comment="the id of the session, when it could be read"),
        sa.Column("reason", sa.Text(), nullable=False, comment="why it could not be read"),
        sa.Column("payload", sa.Text(), nullable=False, comment="the item as Albert sent it, as JSON"),
        sa.Column("seen_at", MOMENT, nullable=False, comment="when it was first met"),
        sa.Column("resolved_at", MOMENT, nullable=True, comment="when a good version came, or the item went"),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="tells the same item again"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
        comment="listed items that could not be read",
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        "uq_quarantine_open",
        "quarantine",
        ["fingerprint"],
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "session_versions",
        sa.Column("session_key", KEY, autoincrement=False, nullable=False, comment="the session's row in sessions"),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False, comment="counts from 1"),
        sa.Column("valid_from", MOMENT, nullable=False, comment="when syncd wrote this version"),
        sa.Column("valid_to", MOMENT, nullable=False, comment="when the next version took its place"),
        sa.Column("change", sa.Text(), nullable=False, comment="what made this version"),
        sa.Column("id", sa.Text(), nullable=False, comment="Albert's id of the session, such as SES123"),
        sa.Column("name", sa.Text(), nullable=False, comment="the session's name"),
        sa.Column("parent_id", sa.Text(), nullable=True, comment="the folder that the session is in"),
        sa.Column(
            "source_session_id", sa.Text(), nullable=False, comment="the external id that the session was created with"
        ),
        sa.Column(
            "status", sa.Text(), nullable=True, comment="active or inactive, or a value that Albert has added since"
        ),
        sa.Column(
            "kind", sa.Text(), nullable=True, comment="chat or automation, or a value that Albert has added since"
        ),
        sa.Column("automation_id", sa.Text(), nullable=True, comment="the automation that owns the session"),
        sa.Column("automation_run_id", sa.Text(), nullable=True, comment="the run that made the session"),
        sa.Column("last_message_at", MOMENT, nullable=True, comment="when the last message was written"),
        sa.Column("created_by", sa.Text(), nullable=True, comment="the id of the user who created the session"),
        sa.Column("created_by_name", sa.Text(), nullable=True, comment="the name of the user who created the session"),
        sa.Column("created_at", MOMENT, nullable=True, comment="when Albert created the session"),
        sa.Column("updated_by", sa.Text(), nullable=True, comment="the id of the user who changed the session last"),
        sa.Column(
            "updated_by_name", sa.Text(), nullable=True, comment="the name of the user who changed the session last"
        ),
        sa.Column("updated_at", MOMENT, nullable=True, comment="when Albert changed the session last"),
        sa.Column(
            "extra",
            JSON_TEXT,
            server_default="{}",
            nullable=False,
            comment="JSON of the fields that syncd does not know, and of times that could not be read; {} when empty",
        ),
        sa.Column("pass_id", KEY, nullable=True, comment="the pass that wrote this version"),
        sa.PrimaryKeyConstraint("session_key", "version", name=op.f("pk_session_versions")),
        comment="the versions that are past; read the view chat_session_history",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sessions",
        sa.Column(
            "key",
            KEY,
            sa.Identity(),
            nullable=False,
            comment="syncd's own number of the session; a pass keeps one bit for each",
        ),
        sa.Column("valid_from", MOMENT, nullable=False, comment="when syncd wrote this version"),
        sa.Column(
            "deleted_at",
            MOMENT,
            nullable=True,
            comment="when the session was found deleted; the row stays as a tombstone",
        ),
        sa.Column(
            "change", sa.Text(), nullable=False, comment="what made this version: created, updated, deleted, restored"
        ),
        sa.Column("id", sa.Text(), nullable=False, comment="Albert's id of the session, such as SES123"),
        sa.Column("name", sa.Text(), nullable=False, comment="the session's name"),
        sa.Column("parent_id", sa.Text(), nullable=True, comment="the folder that the session is in"),
        sa.Column(
            "source_session_id", sa.Text(), nullable=False, comment="the external id that the session was created with"
        ),
        sa.Column(
            "status", sa.Text(), nullable=True, comment="active or inactive, or a value that Albert has added since"
        ),
        sa.Column(
            "kind", sa.Text(), nullable=True, comment="chat or automation, or a value that Albert has added since"
        ),
        sa.Column("automation_id", sa.Text(), nullable=True, comment="the automation that owns the session"),
        sa.Column("automation_run_id", sa.Text(), nullable=True, comment="the run that made the session"),
        sa.Column("last_message_at", MOMENT, nullable=True, comment="when the last message was written"),
        sa.Column("created_by", sa.Text(), nullable=True, comment="the id of the user who created the session"),
        sa.Column("created_by_name", sa.Text(), nullable=True, comment="the name of the user who created the session"),
        sa.Column("created_at", MOMENT, nullable=True, comment="when Albert created the session"),
        sa.Column("updated_by", sa.Text(), nullable=True, comment="the id of the user who changed the session last"),
        sa.Column(
            "updated_by_name", sa.Text(), nullable=True, comment="the name of the user who changed the session last"
        ),
        sa.Column("updated_at", MOMENT, nullable=True, comment="when Albert changed the session last"),
        sa.Column(
            "extra",
            JSON_TEXT,
            server_default="{}",
            nullable=False,
            comment="JSON of the fields that syncd does not know, and of times that could not be read; {} when empty",
        ),
        sa.Column("version", sa.Integer(), nullable=False, comment="counts the versions of the session from 1"),
        sa.Column(
            "pass_id",
            KEY,
            nullable=True,
            comment="the pass that wrote this version; null when an operation or a look-up did",
        ),
        sa.Column("first_seen_at", MOMENT, nullable=False, comment="when syncd first saw the session"),
        sa.Column(
            "observed_at",
            MOMENT,
            nullable=True,
            comment="the last time that something other than a listing showed it",
        ),
        sa.Column(
            "missing_since",
            MOMENT,
            nullable=True,
            comment="since when complete passes have missed it; null while listed",
        ),
        sa.Column("absences", sa.Integer(), server_default="0", nullable=False, comment="404s counted since then"),
        sa.Column("absence_pass_id", KEY, nullable=True, comment="the last pass that counted one"),
        sa.CheckConstraint("(change = 'deleted') = (deleted_at IS NOT NULL)", name=op.f("ck_sessions_deleted")),
        sa.CheckConstraint(
            "change = 'created' OR change = 'updated' OR change = 'deleted' OR change = 'restored'",
            name=op.f("ck_sessions_change"),
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_sessions")),
        comment="every session ever seen, with its current version; read the views chat_sessions and chat_sessions_all",
        sqlite_strict=True,
    )
    op.create_index(
        "ix_sessions_deleted",
        "sessions",
        ["deleted_at"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NOT NULL"),
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_index(
        "ix_sessions_live_source",
        "sessions",
        ["source_session_id", "id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_sessions_missing",
        "sessions",
        ["missing_since"],
        unique=False,
        sqlite_where=sa.text("missing_since IS NOT NULL"),
        postgresql_where=sa.text("missing_since IS NOT NULL"),
    )
    op.create_index("uq_sessions_id", "sessions", ["id"], unique=True)
    op.create_table(
        "source_sessions",
        sa.Column("source_session_id", sa.Text(), nullable=False, comment="an external id"),
        sa.Column(
            "state",
            sa.Text(),
            server_default="unresolved",
            nullable=False,
            comment="unresolved, linked, missing or conflict",
        ),
        sa.Column("session_id", sa.Text(), nullable=True, comment="the session it is linked to"),
        sa.Column("checked_at", MOMENT, nullable=True, comment="when its state was last made sure of"),
        sa.Column(
            "note",
            sa.Text(),
            nullable=True,
            comment="what a person should know: the sessions in conflict, why it cannot be asked for",
        ),
        sa.CheckConstraint("state <> 'linked' OR session_id IS NOT NULL", name=op.f("ck_source_sessions_linked")),
        sa.CheckConstraint(
            "state = 'linked' OR state = 'unresolved' OR state = 'missing' OR state = 'conflict'",
            name=op.f("ck_source_sessions_state"),
        ),
        sa.PrimaryKeyConstraint("source_session_id", name=op.f("pk_source_sessions")),
        comment="external ids and where they stand; any program may INSERT source_session_id",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_source_sessions_unlinked",
        "source_sessions",
        ["state", "checked_at"],
        unique=False,
        sqlite_where=sa.text("state <> 'linked'"),
        postgresql_where=sa.text("state <> 'linked'"),
    )
    op.create_table(
        "writers",
        sa.Column(
            "id", sa.Text(), nullable=False, comment="the process; a number of its own that it draws at its start"
        ),
        sa.Column("number", KEY, nullable=False, comment="its last transaction that wrote anything"),
        sa.Column("written_at", MOMENT, nullable=False, comment="when that was"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_writers")),
        comment="on PostgreSQL, what tells whether a commit whose answer was lost has happened",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    # --- tables end

    for statement in (*VIEWS, FRESHNESS.format(age=AGE[dialect])):
        _run(statement)
    if dialect == "postgresql":
        _run("COMMENT ON TABLE alembic_version IS 'the version of the schema'")
    for statement in SQLITE_TRIGGERS if dialect == "sqlite" else POSTGRESQL_TRIGGERS:
        _run(statement)


def _run(statement: str) -> None:
    """Run a statement as it is: a colon in it is not a parameter."""
    op.execute(sa.text(statement.replace(":", r"\:")))
