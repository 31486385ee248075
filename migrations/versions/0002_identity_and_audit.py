"""The identity of a mirror, what operators decided, and columns for the rules of listings and of restored backups."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add two tables and four columns; no row changes."""
    op.create_table(
        "mirror_identity",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False, comment="always 1: there is one row"),
        sa.Column(
            "origin", sa.Text(), nullable=True, comment="scheme, host, port and path of the Albert that is mirrored"
        ),
        sa.Column("tenant_id", sa.Text(), nullable=True, comment="the tenant, when the credentials name one"),
        sa.Column("pinned_at", MOMENT, nullable=True, comment="when origin and tenant were stored"),
        sa.Column("copied_at", MOMENT, nullable=True, comment="set in a backup: when the copy was made"),
        sa.Column(
            "moved_to", sa.Text(), nullable=True, comment="where migrate-store moved this mirror, without a password"
        ),
        sa.Column("moved_at", MOMENT, nullable=True, comment="when that was"),
        sa.CheckConstraint("id = 1", name=op.f("ck_mirror_identity_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mirror_identity")),
        comment="whose sessions this database mirrors, and whether it is a copy or was moved away",
        sqlite_strict=True,
    )
    op.create_table(
        "operator_actions",
        sa.Column("id", KEY, sa.Identity(), nullable=False, comment="the action"),
        sa.Column("at", MOMENT, nullable=False, comment="when it was done"),
        sa.Column("by", sa.Text(), nullable=False, comment="who did it: --by, or the user of the operating system"),
        sa.Column(
            "action",
            sa.Text(),
            nullable=False,
            comment="such as approve, reject, retry, cancel, release, accept, restore, prune",
        ),
        sa.Column("subject", sa.Text(), nullable=False, comment="what it was done to, such as operation 12 or pass 7"),
        sa.Column("detail", sa.Text(), nullable=True, comment="what changed, such as the state before"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_actions")),
        comment="what operators decided, and who and when",
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.add_column(
        "passes", sa.Column("listed_at", MOMENT, comment="when its last page was read, if every page was read")
    )
    op.add_column("quarantine", sa.Column("accepted_at", MOMENT, comment="when an operator accepted it as unreadable"))
    op.add_column(
        "sessions",
        sa.Column(
            "unlisted_alive_at", MOMENT, comment="when Albert last answered 200 for it although it is not listed"
        ),
    )
    op.create_index(
        "ix_sessions_unlisted_alive",
        "sessions",
        ["unlisted_alive_at"],
        sqlite_where=sa.text("unlisted_alive_at IS NOT NULL"),
        postgresql_where=sa.text("unlisted_alive_at IS NOT NULL"),
    )
