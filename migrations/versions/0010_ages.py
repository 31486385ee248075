"""Ages that are never negative, also after the clock was set back, and the comment of a column that deletes use too."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UNKNOWN_SINCE = "when the answer to the last create, or to a delete, was lost"
AGE = {
    "sqlite": "CAST(max(round((julianday('now') - julianday({0})) * 86400.0, 3), 0.0) AS REAL)",
    "postgresql": (
        "CASE WHEN {0} IS NOT NULL "
        "THEN greatest(round(extract(epoch from now() - {0})::numeric, 3)::double precision, 0) END"
    ),
}
COUNT = {"sqlite": "INTEGER", "postgresql": "BIGINT"}
FRESHNESS = """
VIEW mirror_freshness
AS SELECT p.finished_at AS last_complete_pass_at,
       {age} AS age_seconds,
       CAST(coalesce(t.live_sessions, 0) AS {count}) AS live_sessions,
       CAST(coalesce(t.deleted_sessions, 0) AS {count}) AS deleted_sessions,
       CAST((SELECT count(*) FROM sessions WHERE missing_since IS NOT NULL) AS {count}) AS missing_sessions,
       CAST((SELECT count(*) FROM quarantine WHERE accepted_at IS NULL AND resolved_at IS NULL) AS {count})
        AS quarantined_items,
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


def upgrade() -> None:
    """Make the view again; on PostgreSQL it is replaced, because readers would lose their rights to a dropped one."""
    dialect = op.get_context().dialect.name
    age = AGE[dialect]
    view = FRESHNESS.format(age=age.format("p.finished_at"), listed_age=age.format("l.listed_at"), count=COUNT[dialect])
    if dialect == "sqlite":
        op.execute("DROP VIEW mirror_freshness")
        op.execute(f"CREATE {view.strip()}")
    else:
        op.execute(sa.text(f"CREATE OR REPLACE {view.strip()}".replace(":", r"\:")))
        op.execute(f"COMMENT ON COLUMN operations.unknown_since IS '{UNKNOWN_SINCE}'")
