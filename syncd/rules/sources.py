"""Rules for source ids: the state of one, and how an adopted session differs from what was requested.

Pure: no I/O, no clock and no randomness except the arguments.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from syncd.records.ids import SessionId, SourceId

_LABELS = {"source_session_id": "source id", "name": "name", "parent_id": "folder"}


class Requestable(Protocol):
    """A session with the columns that an operation can ask for."""

    @property
    def source_session_id(self) -> str | None:
        """The external id."""

    @property
    def name(self) -> str:
        """The session's name."""

    @property
    def parent_id(self) -> str | None:
        """The id of the folder."""


def difference(session: Requestable, wanted: Mapping[str, str | None]) -> str | None:
    """Return how a session differs from the wanted values of some columns; None if it does not.

    Parameters
    ----------
    wanted : Mapping[str, str | None]
        Values of `source_session_id`, `name` and `parent_id`; columns that are left out are not compared.
    """
    parts = []
    for column, value in wanted.items():
        if (actual := getattr(session, column)) != value:
            parts.append(f"{_LABELS[column]} is {actual!r} and not {value!r}")
    return ", ".join(parts) or None


def alike(source_id: SourceId, other: SourceId) -> bool:
    """Whether two source ids differ only in case, outer white space or the form of their characters.

    Some servers store a source id in another form, and find it under both.
    """
    return _normalized(source_id) == _normalized(other)


def _normalized(source_id: SourceId) -> str:
    return unicodedata.normalize("NFKC", source_id).casefold().strip()


@dataclass(frozen=True, slots=True)
class SourceState:
    """The state of a source id, the session if it is linked, and a note for a person."""

    state: str
    session_id: SessionId | None
    note: str | None


def source_state(carriers: Sequence[tuple[SessionId, bool]], albert: SessionId | None = None) -> SourceState | None:
    """Return the state of a source id by the live sessions that carry it.

    Parameters
    ----------
    carriers : Sequence[tuple[str, bool]]
        The id of each live session that carries it, and whether that session is missing from listings.
    albert : str | None
        The session that Albert named, when it was asked.

    Returns
    -------
    SourceState | None
        None when no session carries it: then the state does not follow from the mirror.
    """
    listed = sorted(session_id for session_id, missing in carriers if not missing)
    ids = listed or sorted(session_id for session_id, _ in carriers)
    if not ids:
        return None
    if len(ids) > 1:
        named = f"; Albert names {albert}" if albert else ""
        return SourceState("conflict", None, f"carried by {', '.join(ids)}{named}"[:4000])
    if albert is not None and albert != ids[0]:
        return SourceState("conflict", None, f"the mirror has {ids[0]}, Albert names {albert}")
    return SourceState("linked", ids[0], None)
