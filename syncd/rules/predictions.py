"""Predict what each operation of a sequence does to the sessions. `mirror.store.import_plan` calls it for a dry run.

Pure: no I/O, no clock and no randomness except the arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from syncd.records.enums import OperationKind
from syncd.rules.sources import difference

_CHANGEABLE = ("name", "parent_id")
_DELETED_EARLIER = "an earlier operation deletes it"
_QUEUED = "queued already"


class PlannedOutcome(StrEnum):
    """The predicted outcome of an operation."""

    CREATED = "created"
    ADOPTED = "adopted"
    """Albert has the session with another name or folder, or will have it after an earlier operation."""
    UPDATED = "updated"
    DELETED = "deleted"
    THERE = "there"
    """Albert has what the operation asks for, or will have it after an earlier operation."""
    ABSENT = "absent"
    """The session to delete or to update does not exist, or an earlier operation deletes it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The outcome of an operation, the session if the mirror knows its id, and a note for a person."""

    outcome: PlannedOutcome
    session_id: str | None = None
    note: str | None = None


@dataclass(slots=True, eq=False)
class PredictedSession:
    """A session as the operations so far leave it.

    Attributes
    ----------
    id : str | None
        None if an operation creates the session.
    changed : set[str]
        The columns that an operation sets, of `name` and `parent_id`.
    """

    id: str | None
    source_session_id: str | None
    name: str
    parent_id: str | None
    changed: set[str] = field(default_factory=set)


class Predictions:
    """The sessions that operations name by an id or a source id, as the operations so far leave them.

    Parameters
    ----------
    live : Iterable[PredictedSession]
        The sessions before the first operation. Of several with one source id, the first is the one that it names.
    """

    def __init__(self, live: Iterable[PredictedSession]) -> None:
        self._by_id: dict[str, PredictedSession | None] = {}
        """None for a deleted session."""
        self._by_source: dict[str, list[PredictedSession]] = {}
        """An empty list after the deletion of the last session with the source id."""
        for session in live:
            self._add(session)

    def predict(self, operation: Mapping[str, Any]) -> Prediction:
        """Predict the outcome of the next operation, and apply it.

        Parameters
        ----------
        operation : Mapping[str, Any]
            With `kind`, `source_session_id`, `session_id`, `name` and `parent_id`.
        """
        session = self._find(operation)
        if operation["kind"] == OperationKind.CREATE:
            return self._create(operation) if session is None else _adopt(session, operation)
        if session is None:
            note = _DELETED_EARLIER if self._is_deleted(operation) else None
            return Prediction(PlannedOutcome.ABSENT, operation["session_id"], note)
        if operation["kind"] == OperationKind.DELETE:
            self._remove(session)
            return Prediction(PlannedOutcome.DELETED, session.id)
        return _update(session, operation)

    def _find(self, operation: Mapping[str, Any]) -> PredictedSession | None:
        if operation["session_id"]:
            return self._by_id.get(operation["session_id"])
        return next(iter(self._by_source.get(operation["source_session_id"], ())), None)

    def _is_deleted(self, operation: Mapping[str, Any]) -> bool:
        if operation["session_id"]:
            return operation["session_id"] in self._by_id
        return operation["source_session_id"] in self._by_source

    def _create(self, operation: Mapping[str, Any]) -> Prediction:
        values = _wanted(operation)
        self._add(PredictedSession(None, operation["source_session_id"], **values, changed=set(values)))
        return Prediction(PlannedOutcome.CREATED)

    def _add(self, session: PredictedSession) -> None:
        if session.id is not None:
            self._by_id[session.id] = session
        if session.source_session_id is not None:
            self._by_source.setdefault(session.source_session_id, []).append(session)

    def _remove(self, session: PredictedSession) -> None:
        if session.id is not None:
            self._by_id[session.id] = None
        if session.source_session_id is not None:
            self._by_source[session.source_session_id].remove(session)


def _adopt(session: PredictedSession, operation: Mapping[str, Any]) -> Prediction:
    """Predict a create of a session that exists: it stays as it is."""
    wanted = _wanted(operation)
    differs = difference(session, wanted)
    if differs is None:
        return _unchanged(session, wanted)
    return Prediction(PlannedOutcome.ADOPTED, session.id, differs)


def _update(session: PredictedSession, operation: Mapping[str, Any]) -> Prediction:
    wanted = _wanted(operation)
    differs = difference(session, wanted)
    if differs is None:
        return _unchanged(session, wanted)
    for column, value in wanted.items():
        setattr(session, column, value)
    session.changed.update(wanted)
    return Prediction(PlannedOutcome.UPDATED, session.id, differs)


def _unchanged(session: PredictedSession, wanted: Mapping[str, str | None]) -> Prediction:
    note = None if session.changed.isdisjoint(wanted) else _QUEUED
    return Prediction(PlannedOutcome.THERE, session.id, note)


def _wanted(operation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a create or an update asks for; an empty folder means none."""
    if operation["kind"] == OperationKind.CREATE:
        return {"name": operation["name"], "parent_id": operation["parent_id"] or None}
    return {name: operation[name] or None for name in _CHANGEABLE if operation[name] is not None}
