"""The filters of a listing."""

from collections.abc import Callable

from syncd.sandbox.listing import Wanted
from syncd.sandbox.session import Session

_FIELDS: dict[str, Callable[[Session], str | None]] = {
    "createdBy": lambda session: session.created_by,
    "updatedBy": lambda session: session.updated_by,
    "parentId": lambda session: session.parent_id,
    "kind": lambda session: session.kind,
    "automationId": lambda session: session.automation_id,
}


def wanted_by(query: dict[str, list[str]], *, fuzzy: bool, unlisted: frozenset[str] = frozenset()) -> Wanted | None:
    """Return the filter of a query, without the ids that are never listed; None if there is no filter."""
    tests = [_equals(field, query[key]) for key, field in _FIELDS.items() if key in query]
    if "name" in query:
        exact = query.get("exactMatch") == ["true"]
        tests.append(_named(query["name"]) if exact else _named_like(query["name"] if fuzzy else []))
    if unlisted:
        tests.append(lambda session: session.id not in unlisted)
    if not tests:
        return None
    return lambda session: all(test(session) for test in tests)


def _equals(field: Callable[[Session], str | None], values: list[str]) -> Wanted:
    return lambda session: field(session) in values


def _named(names: list[str]) -> Wanted:
    return lambda session: session.name in names


def _named_like(names: list[str]) -> Wanted:
    folded = [name.casefold() for name in names]
    return lambda session: any(name in session.name.casefold() for name in folded)
