"""The database itself: the tenant that it mirrors, and the processes that write to it."""

from __future__ import annotations

import sqlalchemy as sa

from syncd.mirror.schema.tables.columns import metadata
from syncd.mirror.schema.types import Key, UtcDateTime

writers = sa.Table(
    "writers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="the process; a random number that it draws at its start"),
    sa.Column("number", Key, nullable=False, comment="its last transaction with a write"),
    sa.Column("written_at", UtcDateTime, nullable=False, comment="when that transaction was"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="on PostgreSQL: shows whether a commit was applied whose answer was lost",
)

mirror_identity = sa.Table(
    "mirror_identity",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1: there is one row"),
    sa.Column("origin", sa.Text, comment="scheme, host, port and path of the Albert that is mirrored"),
    sa.Column("tenant_id", sa.Text, comment="the tenant, if the credentials name one"),
    sa.Column("pinned_at", UtcDateTime, comment="when origin and tenant were stored"),
    sa.Column("copied_at", UtcDateTime, comment="set in a backup: when the copy was made"),
    sa.Column("moved_to", sa.Text, comment="where migrate-store moved this mirror, without a password"),
    sa.Column("moved_at", UtcDateTime, comment="when it was moved"),
    sa.CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
    comment="the tenant that this database mirrors, and whether it is a copy or was moved away",
)
