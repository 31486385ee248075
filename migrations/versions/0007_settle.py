"""When the settle time of an unknown operation began, so that the next process continues it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the reading of a machine's clock; the settle time of operations that are unknown now begins again."""
    for column in (
        sa.Column(
            "settle_machine", sa.Text(), comment="the machine, since its last restart, whose clock settle_us is of"
        ),
        sa.Column("settle_us", KEY, comment="microseconds of its monotonic clock when the settle time began"),
        sa.Column(
            "settle_for", MOMENT, comment="the unknown_since whose settle time it is; for another one it begins again"
        ),
    ):
        op.add_column("operations", column)
