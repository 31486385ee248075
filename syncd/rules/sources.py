"""Rules for source ids: the state of one, and how an adopted session differs from what was requested.

Pure: no I/O, no clock and no randomness except the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncd.records.fields import SessionRow

if TYPE_CHECKING:
    from collections.abc import Sequence


def difference(row: SessionRow, *, name: str, parent_id: str | None) -> str | None:
    """Say in what an adopted session is not as the operation asked; None when it is."""
    wanted = {"name": (row.name, name), "folder": (row.parent_id, parent_id)}
    parts = [f"{what} is {has!r} and not {asked!r}" for what, (has, asked) in wanted.items() if has != asked]
    return "adopted as it is: " + ", ".join(parts) if parts else None


@dataclass(frozen=True, slots=True)
class SourceState:
    """Where a source id stands."""

    state: str
    session_id: str | None
    note: str | None


def source_state(carriers: Sequence[tuple[str, bool]], albert: str | None = None) -> SourceState | None:
    """Tell where a source id stands from the live sessions that carry it.

    Parameters
    ----------
    carriers : Sequence[tuple[str, bool]]
        The id of each live session that carries it, and whether that session is missing from listings.
    albert : str | None
        The session that Albert named, when it was asked.

    Returns
    -------
    SourceState | None
        None when nobody carries it: then the mirror cannot tell.
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
