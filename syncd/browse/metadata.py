"""The metadata of the mirror for Datasette: meanings, facets and the twenty questions. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syncd.mirror.read import catalog
from syncd.mirror.read.questions import QUERIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa

NAME = "syncd"
"""The database's name in Datasette's addresses, whatever the file is called."""
_FACETS = {
    "chat_sessions": ("created_by_name", "parent_id", "status", "kind"),
    "chat_sessions_all": ("created_by_name", "parent_id", "status", "kind"),
    "chat_session_history": ("change", "updated_by_name"),
    "passes": ("state",),
    "operations": ("kind", "state", "requested_by"),
    "source_sessions": ("state",),
    "quarantine": ("reason",),
}
_NEWEST_FIRST = {
    "chat_sessions": "changed_at",
    "chat_sessions_all": "changed_at",
    "chat_session_history": "valid_from",
    "passes": "id",
    "operations": "id",
    "quarantine": "id",
}
_INTERNAL = "Internal: it may change from one release of syncd to the next; read the views instead. "
_ABOUT = f"""
<p>A live, read-only mirror of Albert's chat sessions, kept by syncd. Begin with the questions below, or with the view
<a href="/{NAME}/chat_sessions">chat_sessions</a>; <a href="/{NAME}/mirror_freshness">how fresh it is</a>.
All times are UTC. Each query sees one moment; the next may see a later one.</p>
"""


def _table(table: sa.Table) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": _sentence(table.comment or ""),
        "columns": {column.name: column.comment for column in table.c},
    }
    if table.name in _FACETS:
        described["facets"] = list(_FACETS[table.name])
    if table.name in _NEWEST_FIRST:
        described["sort_desc"] = _NEWEST_FIRST[table.name]
    return described


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _tables() -> Mapping[str, Any]:
    shown = {name: _table(table) for name, table in (catalog.VIEWS | catalog.TABLES).items()}
    internal = {
        name: _table(table) | {"hidden": True, "description": f"{_INTERNAL}{_sentence(table.comment or '')}"}
        for name, table in catalog.INTERNAL.items()
    }
    others = {
        "alembic_version": {"hidden": True, "description": "The version of the schema."},
        "sqlite_sequence": {"hidden": True, "description": "SQLite's own: the last id of each table."},
    }
    return shown | internal | others


def metadata() -> dict[str, Any]:
    """Return Datasette's metadata for the mirror."""
    queries = {
        query.name: {
            "sql": query.sql("sqlite", **{name: f":{name}" for name in query.parameters}),
            "title": query.question,
            "description": query.about.replace("`", ""),
            "chart": query.chart,
        }
        for query in QUERIES
    }
    return {
        "title": "syncd",
        "description_html": _ABOUT,
        "databases": {
            NAME: {"title": "syncd", "description_html": _ABOUT, "tables": _tables(), "queries": queries},
        },
    }
