"""The change feed, views that read one table, counts that are kept instead of counted, and folders.

A version gets a number (`seq`) in the order of commits and the names of the fields that it changed. Old versions are
numbered in the order of `valid_from`. The views of analysts are made again with new columns at their ends.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON_TEXT = sa.Text().with_variant(postgresql.JSONB(), "postgresql")

CONTENT = (
    "id", "name", "parent_id", "source_session_id", "status", "kind", "automation_id", "automation_run_id",
    "last_message_at", "created_by", "created_by_name", "created_at", "updated_by", "updated_by_name", "updated_at",
    "extra",
)  # fmt: skip
COLUMNS = ", ".join(CONTENT)
SESSION_COLUMNS = ", ".join(f"s.{name}" for name in CONTENT)

SEQ = "the place of this version among all versions, in the order of commits"
CHANGED_FIELDS = "JSON list of the columns that this version changed; [] for created and deleted"
CREATED_DATE = "the UTC date of created_at, as YYYY-MM-DD"
LAST_MESSAGE_DATE = "the UTC date of last_message_at, as YYYY-MM-DD"

DATE = {
    "sqlite": "substr({}, 1, 10)",
    "postgresql": "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
DISTINCT = {"sqlite": "IS NOT", "postgresql": "IS DISTINCT FROM"}
AGE = {
    "sqlite": "CAST(round((julianday('now') - julianday({0})) * 86400.0, 3) AS REAL)",
    "postgresql": "round(extract(epoch from now() - {0})::numeric, 3)::double precision",
}
MOMENT_NAME = {"sqlite": "TEXT", "postgresql": "timestamptz"}
COUNT = {"sqlite": "INTEGER", "postgresql": "BIGINT"}

# PostgreSQL joins by a hash and drops a join that no column needs. SQLite drops no join from an aggregate, but computes
# a scalar subquery only where its column is used.
FOLDER = {
    "sqlite": (
        "(SELECT f.name FROM folders AS f WHERE f.id = s.parent_id AND f.deleted_at IS NULL) AS folder_name, "
        "(SELECT f.path FROM folders AS f WHERE f.id = s.parent_id AND f.deleted_at IS NULL) AS folder_path",
        "sessions AS s",
    ),
    "postgresql": (
        "f.name AS folder_name, f.path AS folder_path",
        "sessions AS s LEFT JOIN folders AS f ON f.id = s.parent_id AND f.deleted_at IS NULL",
    ),
}

SESSIONS = f"""
AS SELECT {SESSION_COLUMNS}, s.first_seen_at, s.valid_from AS changed_at,
       {{folder}}, s.created_date, s.last_message_date
FROM {{tables}}
WHERE s.deleted_at IS NULL
"""
SESSIONS_ALL = f"""
AS SELECT {SESSION_COLUMNS}, s.first_seen_at, s.valid_from AS changed_at, s.missing_since, s.deleted_at,
       {{folder}}, s.created_date, s.last_message_date
FROM {{tables}}
"""
# SQLite merges the two parts in the order of an index only if their columns have the same affinity, NULL included.
HISTORY = f"""
AS SELECT id AS session_id, change, valid_from, valid_to, pass_id, {COLUMNS}, first_seen_at, valid_from AS changed_at
FROM session_versions
UNION ALL
SELECT id, change, valid_from, CAST(NULL AS {{moment}}), pass_id, {COLUMNS}, first_seen_at, valid_from
FROM sessions
"""
CHANGES = f"""
AS SELECT seq, changed_fields, id AS session_id, change, valid_from, valid_to, pass_id, {COLUMNS},
       first_seen_at, valid_from AS changed_at
FROM session_versions
UNION ALL
SELECT seq, changed_fields, id, change, valid_from, CAST(NULL AS {{moment}}), pass_id, {COLUMNS},
       first_seen_at, valid_from
FROM sessions
"""
# A version adds to `active` only if its date is not the date of the current version, which counts already.
DAILY = """
AS WITH events AS (
    SELECT {born} AS date, kind, 1 AS created, 0 AS deleted, 0 AS active FROM sessions
    UNION ALL
    SELECT {died}, kind, 0, 1, 0 FROM sessions WHERE deleted_at IS NOT NULL
    UNION ALL
    SELECT last_message_date, kind, 0, 0, 1 FROM sessions WHERE last_message_date IS NOT NULL
    UNION ALL
    SELECT date, kind, 0, 0, 1 FROM (
        SELECT DISTINCT v.session_key, {spoken} AS date, s.kind
        FROM session_versions AS v JOIN sessions AS s ON s.key = v.session_key
        WHERE v.last_message_at IS NOT NULL AND {spoken} {distinct} s.last_message_date
    ) AS earlier
), days AS (
    SELECT date, kind, sum(created) AS created, sum(deleted) AS deleted, sum(active) AS active
    FROM events GROUP BY date, kind
)
SELECT CAST(date AS TEXT) AS date, CAST(kind AS TEXT) AS kind,
       CAST(sum(created - deleted) OVER (PARTITION BY kind ORDER BY date) AS {count}) AS live,
       CAST(created AS {count}) AS created, CAST(deleted AS {count}) AS deleted, CAST(active AS {count}) AS active
FROM days
"""
FOLDERS = """
AS SELECT id, name, parent_id, type, path, created_at, updated_at, extra, first_seen_at, changed_at
FROM folders
WHERE deleted_at IS NULL
"""
FRESHNESS = """
AS SELECT p.finished_at AS last_complete_pass_at,
       {age} AS age_seconds,
       CAST(coalesce(t.live_sessions, 0) AS {count}) AS live_sessions,
       CAST(coalesce(t.deleted_sessions, 0) AS {count}) AS deleted_sessions,
       CAST((SELECT count(*) FROM sessions WHERE missing_since IS NOT NULL) AS {count}) AS missing_sessions,
       CAST((SELECT count(*) FROM quarantine WHERE resolved_at IS NULL) AS {count}) AS quarantined_items,
       CAST((SELECT count(*) FROM operations WHERE state = 'pending') AS {count}) AS operations_pending,
       CAST((SELECT count(*) FROM operations WHERE state = 'unknown') AS {count}) AS operations_unknown,
       CAST((SELECT count(*) FROM operations WHERE state = 'dead') AS {count}) AS operations_dead,
       CAST((SELECT h.pass_id FROM holds AS h WHERE h.state = 'open') AS {count}) AS held_pass_id,
       l.listed_at AS last_listed_at,
       {listed_age} AS listed_age_seconds,
       CAST((SELECT count(*) FROM operations WHERE on_hold_at IS NOT NULL AND state IN ('pending', 'unknown'))
        AS {count}) AS operations_on_hold,
       CAST((SELECT count(*) FROM sessions WHERE unlisted_alive_at IS NOT NULL AND deleted_at IS NULL)
        AS {count}) AS unlisted_alive_sessions
FROM (SELECT 1 AS id) AS one
LEFT JOIN mirror_totals AS t ON t.id = one.id
LEFT JOIN passes AS p ON p.id = (SELECT max(id) FROM passes WHERE state = 'complete')
LEFT JOIN passes AS l ON l.id = (SELECT max(id) FROM passes WHERE listed_at IS NOT NULL)
"""

NUMBERED = """
SELECT key, version, row_number() OVER (ORDER BY valid_from, key, version) AS seq
FROM (
    SELECT key, version, valid_from FROM sessions
    UNION ALL
    SELECT session_key, version, valid_from FROM session_versions
) AS versions
"""
NUMBER_SESSIONS = f"""
UPDATE sessions SET seq = n.seq, created_date = {{created}}, last_message_date = {{spoken}},
    missing_since = CASE WHEN deleted_at IS NULL THEN missing_since END
FROM ({NUMBERED}) AS n WHERE n.key = sessions.key AND n.version = sessions.version
"""
NUMBER_VERSIONS = f"""
UPDATE session_versions SET seq = n.seq, first_seen_at = s.first_seen_at
FROM ({NUMBERED}) AS n, sessions AS s
WHERE n.key = session_versions.session_key AND n.version = session_versions.version AND s.key = n.key
"""
TOTALS = """
INSERT INTO mirror_totals (id, last_seq, live_sessions, deleted_sessions)
SELECT 1, max(seq), count(*) - count(deleted_at), count(deleted_at) FROM sessions HAVING count(*) > 0
"""


def upgrade() -> None:
    """Add columns, tables and indexes, number the old versions, and make the views."""
    dialect = op.get_context().dialect.name
    if dialect == "sqlite":
        for name in sorted(_existing_views() & _views(dialect).keys()):
            op.execute(f"DROP VIEW {name}")
    _add_columns()
    _create_tables()
    _number_versions(dialect)
    _create_indexes(dialect)
    # PostgreSQL replaces views: readers would lose their rights to a view that is dropped.
    create = "CREATE VIEW" if dialect == "sqlite" else "CREATE OR REPLACE VIEW"
    for name, query in _views(dialect).items():
        op.execute(sa.text(f"{create} {name} {query.strip()}".replace(":", r"\:")))


def _existing_views() -> set[str]:
    return set(sa.inspect(op.get_bind()).get_view_names())


def _views(dialect: str) -> dict[str, str]:
    date, age = DATE[dialect], AGE[dialect]
    folder, tables = FOLDER[dialect]
    seen = date.format("first_seen_at")
    born = f"CASE WHEN created_date < {seen} THEN created_date ELSE {seen} END"
    return {
        "chat_sessions": SESSIONS.format(folder=folder, tables=tables),
        "chat_sessions_all": SESSIONS_ALL.format(folder=folder, tables=tables),
        "chat_session_history": HISTORY.format(moment=MOMENT_NAME[dialect]),
        "chat_session_changes": CHANGES.format(moment=MOMENT_NAME[dialect]),
        "chat_sessions_daily": DAILY.format(
            born=born, died=date.format("deleted_at"), spoken=date.format("v.last_message_at"),
            distinct=DISTINCT[dialect], count=COUNT[dialect],
        ),
        "chat_folders": FOLDERS,
        "mirror_freshness": FRESHNESS.format(
            age=age.format("p.finished_at"), listed_age=age.format("l.listed_at"), count=COUNT[dialect]
        ),
    }  # fmt: skip


def _add_columns() -> None:
    for table in ("sessions", "session_versions"):
        op.add_column(table, sa.Column("seq", KEY, server_default="0", nullable=False, comment=SEQ))
        op.add_column(
            table, sa.Column("changed_fields", sa.Text(), server_default="[]", nullable=False, comment=CHANGED_FIELDS)
        )
    op.add_column("session_versions", sa.Column("first_seen_at", MOMENT, comment="when syncd first saw the session"))
    op.add_column("sessions", sa.Column("created_date", sa.Text(), comment=CREATED_DATE))
    op.add_column("sessions", sa.Column("last_message_date", sa.Text(), comment=LAST_MESSAGE_DATE))


def _create_tables() -> None:
    op.create_table(
        "mirror_totals",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False, comment="always 1: there is one row"),
        sa.Column("last_seq", KEY, nullable=False, comment="the highest seq that was given to a version"),
        sa.Column("live_sessions", KEY, nullable=False, comment="sessions without deleted_at"),
        sa.Column("deleted_sessions", KEY, nullable=False, comment="sessions with deleted_at"),
        sa.CheckConstraint("id = 1", name=op.f("ck_mirror_totals_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mirror_totals")),
        comment="one row: the end of the change feed, and counts that are kept by each change of a session",
        sqlite_strict=True,
    )
    op.create_table(
        "folders",
        sa.Column("id", sa.Text(), nullable=False, comment="Albert's id of the folder, such as FOL17"),
        sa.Column("name", sa.Text(), nullable=False, comment="the folder's name"),
        sa.Column("type", sa.Text(), nullable=True, comment="root or child, or a value that Albert has added since"),
        sa.Column("parent_id", sa.Text(), nullable=True, comment="the folder that the folder is in"),
        sa.Column("created_at", MOMENT, nullable=True, comment="when Albert created the folder"),
        sa.Column("updated_at", MOMENT, nullable=True, comment="when Albert changed the folder last"),
        sa.Column(
            "extra", JSON_TEXT, server_default="{}", nullable=False,
            comment="JSON of the fields that have no column; {} when empty",
        ),
        sa.Column(
            "path", sa.Text(), nullable=False,
            comment="the names of the folder and of the folders above it, from the top, with ' / ' between them",
        ),
        sa.Column("first_seen_at", MOMENT, nullable=False, comment="when syncd first saw the folder"),
        sa.Column("changed_at", MOMENT, nullable=False, comment="when syncd last saw the folder changed"),
        sa.Column(
            "absences", sa.Integer(), server_default="0", nullable=False,
            comment="complete listings in a row that missed it, each confirmed by a 404 or 410 of its own",
        ),
        sa.Column("deleted_at", MOMENT, nullable=True, comment="when the folder was found deleted"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_folders")),
        comment="every folder ever seen; read the view chat_folders",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "folder_listing",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False, comment="always 1: there is one row"),
        sa.Column("fence", sa.Integer(), nullable=False, comment="rises with each listing; only its holder can write"),
        sa.Column("state", sa.Text(), nullable=True, comment="complete, partial, failed or unavailable"),
        sa.Column("error", sa.Text(), nullable=True, comment="why the last listing is not complete"),
        sa.Column("finished_at", MOMENT, nullable=True, comment="when the last listing ended"),
        sa.Column("complete_at", MOMENT, nullable=True, comment="when the last complete listing ended"),
        sa.CheckConstraint("id = 1", name=op.f("ck_folder_listing_one_row")),
        sa.CheckConstraint(
            "state IN ('complete', 'partial', 'failed', 'unavailable')", name=op.f("ck_folder_listing_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_folder_listing")),
        comment="one row: the last listing of the folders",
        sqlite_strict=True,
    )  # fmt: skip


def _number_versions(dialect: str) -> None:
    date = DATE[dialect]
    created, spoken = date.format("created_at"), date.format("last_message_at")
    op.execute(NUMBER_VERSIONS)
    op.execute(NUMBER_SESSIONS.format(created=created, spoken=spoken))
    for table, key in (("sessions", "key"), ("session_versions", "session_key")):
        changed = " || ".join(
            f"CASE WHEN {table}.{name} {DISTINCT[dialect]} p.{name} THEN ', \"{name}\"' ELSE '' END" for name in CONTENT
        )
        op.execute(
            f"UPDATE {table} SET changed_fields = coalesce((SELECT '[' || ltrim({changed}, ', ') || ']' "
            f"FROM session_versions AS p WHERE p.session_key = {table}.{key} AND p.version = {table}.version - 1), "
            "'[]') WHERE change = 'updated' OR change = 'restored'"
        )
    op.execute(TOTALS)


def _has_index_of_sources() -> bool:
    indexes = sa.inspect(op.get_bind()).get_indexes("sessions")
    return any(index["name"] == "ix_sessions_live_source" for index in indexes)


def _create_indexes(dialect: str) -> None:
    if dialect == "postgresql" or _has_index_of_sources():  # a first pass on SQLite builds it at its end
        op.drop_index("ix_sessions_live_source", "sessions")
        op.create_index("ix_sessions_source", "sessions", ["source_session_id", "id", "deleted_at"])
    op.create_index("uq_sessions_seq", "sessions", ["seq"], unique=True)
    op.create_index("uq_session_versions_seq", "session_versions", ["seq"], unique=True)
    op.create_index("ix_session_versions_id", "session_versions", ["id", "version"])
