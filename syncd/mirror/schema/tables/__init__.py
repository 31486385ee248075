"""The schema, once: the tables, and what each column means.

The comments are PostgreSQL's COMMENTs and the text of `docs/schema.md`. The analysts' views are in
`migrations/versions`. `tests/mirror/schema` compares these modules with the migrations.
"""

from syncd.mirror.schema.tables.columns import content_columns, metadata
from syncd.mirror.schema.tables.database import mirror_identity, writers
from syncd.mirror.schema.tables.folders import folder_listing, folders
from syncd.mirror.schema.tables.passes import elapsed_time, hold_sessions, holds, pages, passes, quarantine
from syncd.mirror.schema.tables.queue import operations, operator_actions
from syncd.mirror.schema.tables.sessions import mirror_totals, session_versions, sessions, source_sessions

__all__ = [
    "content_columns", "elapsed_time", "folder_listing", "folders", "hold_sessions", "holds", "metadata",
    "mirror_identity", "mirror_totals", "operations", "operator_actions", "pages", "passes", "quarantine",
    "session_versions", "sessions", "source_sessions", "writers",
]  # fmt: skip
