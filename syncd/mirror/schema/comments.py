"""The statements that give the analysts' views their comments on PostgreSQL.

`migrations/env.py` runs them when the schema has reached head, with the views of `read/catalog`. The migrations write
the comments of the tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import sqlalchemy as sa


def comment_statements(views: Iterable[sa.Table]) -> Iterator[str]:
    """Yield the statements that give views and their columns the comments of this release."""
    for view in views:
        yield _comment(f"VIEW {view.name}", view.comment)
        for column in view.columns:
            yield _comment(f"COLUMN {view.name}.{column.name}", column.comment)


def _comment(on: str, text: str | None) -> str:
    quoted = (text or "").replace("'", "''")
    return f"COMMENT ON {on} IS '{quoted}'"
