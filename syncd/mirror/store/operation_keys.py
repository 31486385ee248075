"""Which operations are on the same key, as SQL.

An operation is on the source id or the session id that it names, and on that of the session which the mirror knows to
belong to it: a delete by id must neither overtake the create of its session, nor be overtaken by the next create.

Every expression reads one entry of an index, independently of the statistics. A planner that assumes most operations to
be on one key would read all operations in the order of their ids.
"""

from __future__ import annotations

from typing import Literal

from syncd.mirror.schema.enums import ACTIVE

Dialect = Literal["sqlite", "postgresql"]
Which = Literal["first", "last"]


def blocker(this: str, which: Which, dialect: Dialect) -> str:
    """Write the expression for an earlier operation on the same key that is not over; null when there is none.

    Parameters
    ----------
    this : str
        The name of the row of `operations` in the statement around the expression.
    which : Which
        The first or the last operation that names the same id. For operations that only the mirror relates, any one.
    """
    related = _sqlite_related(this) if dialect == "sqlite" else _postgresql_related(this, which)
    return f"coalesce({same_column(this, which, dialect)}, {', '.join(related)})"


def same_column(this: str, which: Which, dialect: Dialect) -> str:
    """Write the expression for an earlier operation that names the same id and is not over, as `blocker` does."""
    return "coalesce({}, {})".format(
        *(_on_key(this, name, f"{this}.{name}", which, dialect) for name in ("source_session_id", "session_id"))
    )


def _on_key(this: str, column: str, key: str, which: Which, dialect: Dialect) -> str:
    """Write the query for the first or the last operation before a row that names an id and is not over."""
    if dialect == "sqlite":
        choice = {"first": "min", "last": "max"}[which]
        return (
            f"(SELECT {choice}(e.id) FROM operations AS e INDEXED BY {_INDEXES[column]} "  # noqa: S608 - columns
            f"WHERE e.{column} = {key} AND e.id < {this}.id AND e.{ACTIVE})"
        )
    # the neighbour in the index; it may name another id
    beside, order = {"first": (f"> ({key}, 0)", "ASC"), "last": (f"< ({key}, {this}.id)", "DESC")}[which]
    return (
        f"(SELECT CASE WHEN e.{column} = {key} AND e.id < {this}.id THEN e.id END FROM ("  # noqa: S608 - columns
        f"SELECT x.{column}, x.id FROM operations AS x WHERE x.{column} IS NOT NULL AND x.{ACTIVE} "
        f"AND (x.{column}, x.id) {beside} ORDER BY x.{column} {order}, x.id {order} LIMIT 1) AS e)"
    )


def _postgresql_related(this: str, which: Which) -> tuple[str, str]:
    """Write the queries through the session of a session id, and through the sessions that carry a source id."""
    own = f"(SELECT s.source_session_id FROM sessions AS s WHERE s.id = {this}.session_id)"  # noqa: S608
    on_carrier = _on_key(this, "session_id", "s.id", which, "postgresql")
    carriers = f"s.source_session_id = {this}.source_session_id AND s.deleted_at IS NULL"
    return (
        _on_key(this, "source_session_id", own, which, "postgresql"),
        f"(SELECT max({on_carrier}) FROM sessions AS s WHERE {carriers})",  # noqa: S608
    )


def _sqlite_related(this: str) -> tuple[str, ...]:
    """Write the same queries as joins: the index on source ids of sessions is missing during a first pass.

    SQLite then begins with the operations that name a session, which are few, and not with all sessions.
    """
    own = f"s.id = {this}.session_id"
    carriers = f"s.source_session_id = {this}.source_session_id AND s.deleted_at IS NULL"
    joins = (("source_session_id", "source_session_id", own), ("session_id", "id", carriers))
    return tuple(
        f"(SELECT e.id FROM sessions AS s JOIN operations AS e INDEXED BY {_INDEXES[name]} ON e.{name} = s.{key} "  # noqa: S608
        f"WHERE e.{name} IS NOT NULL AND {those} AND e.id < {this}.id AND e.{ACTIVE} LIMIT 1)"
        for name, key, those in joins
    )


_INDEXES = {
    "source_session_id": "ix_operations_active_source",
    "session_id": "ix_operations_active_session",
}
