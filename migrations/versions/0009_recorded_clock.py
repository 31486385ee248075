"""The shared clock at the last reading of a monotonic clock: a later process sees by how much it was set since."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Add the column; it is filled at the end of the next complete pass."""
    op.add_column("elapsed_time", sa.Column("clock_at", MOMENT, comment="the shared clock at the last reading"))
