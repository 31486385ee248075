"""Bitmaps for the pages of passes, and accepted items that do not count as in quarantine."""

import re

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# The pages of a running pass say what it has seen. Without them it starts again, with counts of zero: its next holder
# requests the first page. The fence keeps its present holder, which may be an older release, from writing to it.
RESTART = """
UPDATE passes SET page_key = NULL, read_at = NULL, listed_at = NULL, fence = fence + 1, pages = 0, seen = 0,
    inserted = 0, updated = 0, unchanged = 0, restored = 0, quarantined = 0, without_id = 0
WHERE state = 'running'
"""

# The view changes in one condition. The rest stays as the revision that wrote it last left it. It is replaced and not
# dropped, because readers would lose their rights to a view that is dropped. The texts mean the same with either value
# of standard_conforming_strings.
CHANGE_VIEW_POSTGRESQL = r"""
DO $do$
DECLARE
    before text := pg_get_viewdef('mirror_freshness'::regclass);
    changed text := regexp_replace(
        before, '(FROM quarantine[[:space:]]+WHERE )', E'\\1accepted_at IS NULL AND '
    );
BEGIN
    IF changed = before THEN
        RAISE EXCEPTION 'mirror_freshness does not count the quarantine: %', before;
    END IF;
    EXECUTE 'CREATE OR REPLACE VIEW mirror_freshness AS ' || changed;
END
$do$
"""


def upgrade() -> None:
    """Replace the packed keys of pages by bitmaps; drop the rows, which the next complete pass writes again."""
    op.execute("DELETE FROM pages")
    op.execute(RESTART)
    if op.get_context().dialect.name == "sqlite":
        op.drop_table("pages")  # SQLite adds no column that must not be null
        _create_pages()
    else:
        for name in ("session_keys", "quarantine_ids"):
            op.drop_column("pages", name)
        for column in _bitmaps():
            op.add_column("pages", column)
    op.create_index("ix_quarantine_fingerprint", "quarantine", ["fingerprint"])
    if op.get_context().dialect.name == "sqlite":
        _change_view_sqlite()
    else:
        op.execute(CHANGE_VIEW_POSTGRESQL)


def _change_view_sqlite() -> None:
    connection = op.get_bind()
    view = connection.exec_driver_sql(
        "SELECT sql FROM sqlite_master WHERE type = 'view' AND name = 'mirror_freshness'"
    ).scalar_one()
    changed, count = re.subn(r"(FROM quarantine\s+WHERE )", r"\1accepted_at IS NULL AND ", view)
    if count != 1:
        raise RuntimeError(f"mirror_freshness counts the quarantine {count} times: {view}")
    connection.exec_driver_sql("DROP VIEW mirror_freshness")
    connection.exec_driver_sql(changed)


def _bitmaps() -> list[sa.Column[bytes]]:
    return [
        sa.Column("sessions", sa.LargeBinary(), nullable=False, comment="the keys of the sessions on it, a bitmap"),
        sa.Column(
            "unreadable",
            sa.LargeBinary(),
            nullable=False,
            comment="the quarantine rows that the pass counted for it, a bitmap",
        ),
        sa.Column(
            "repeated",
            sa.LargeBinary(),
            nullable=False,
            comment="the quarantine rows on it of sessions that the pass had counted as readable, a bitmap",
        ),
    ]


def _create_pages() -> None:
    op.create_table(
        "pages",
        sa.Column("pass_id", KEY, autoincrement=False, nullable=False, comment="the pass that read the page"),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False, comment="counts the pages from 1"),
        sa.Column("next_key", sa.Text(), nullable=True, comment="the key that the page gave for the next one"),
        sa.Column(
            "digest",
            sa.LargeBinary(),
            nullable=True,
            comment="SHA-256 of the page's bytes, its first 16, when the mirror holds just what it says",
        ),
        sa.Column(
            "versions",
            sa.Integer(),
            nullable=False,
            comment="the sum of the versions of its sessions at that time",
        ),
        *_bitmaps(),
        sa.PrimaryKeyConstraint("pass_id", "number", name=op.f("pk_pages")),
        comment="the pages of the running pass and of the last complete one: what was seen and need not be read again",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
