"""The index on the source ids that Albert is asked about, in their order: reconciling reads no others."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    unlinked = sa.text("state <> 'linked'")
    op.create_index(
        "ix_source_sessions_to_ask",
        "source_sessions",
        ["source_session_id", "state", "checked_at"],
        sqlite_where=unlinked,
        postgresql_where=unlinked,
    )
