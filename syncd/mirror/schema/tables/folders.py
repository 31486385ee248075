"""Chat folders, and the listing of them."""

from __future__ import annotations

import sqlalchemy as sa

from syncd.mirror.schema.tables.columns import content_columns, metadata
from syncd.mirror.schema.types import UtcDateTime
from syncd.records.fields import FOLDERS

folders = sa.Table(
    "folders",
    metadata,
    *content_columns(FOLDERS),
    sa.Column(
        "path",
        sa.Text,
        nullable=False,
        comment="the names of the folder and of the folders above it, from the top, with ' / ' between them",
    ),
    sa.Column("first_seen_at", UtcDateTime, nullable=False, comment="when syncd first saw the folder"),
    sa.Column("changed_at", UtcDateTime, nullable=False, comment="when syncd last saw the folder changed"),
    sa.Column(
        "absences",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="complete listings in a row that missed it, each confirmed by a 404 or 410 of its own",
    ),
    sa.Column("deleted_at", UtcDateTime, comment="when the folder was found deleted"),
    sa.PrimaryKeyConstraint("id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="every folder ever seen; read the view chat_folders",
)

folder_listing = sa.Table(
    "folder_listing",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1: there is one row"),
    sa.Column("fence", sa.Integer, nullable=False, comment="rises with each listing; only its holder can write"),
    sa.Column("state", sa.Text, comment="complete, partial, failed or unavailable"),
    sa.Column("error", sa.Text, comment="why the last listing is not complete"),
    sa.Column("finished_at", UtcDateTime, comment="when the last listing ended"),
    sa.Column("complete_at", UtcDateTime, comment="when the last complete listing ended"),
    sa.CheckConstraint("id = 1", name="one_row"),
    sa.CheckConstraint("state IN ('complete', 'partial', 'failed', 'unavailable')", name="state"),
    sqlite_strict=True,
    comment="one row: the last listing of the folders",
)
