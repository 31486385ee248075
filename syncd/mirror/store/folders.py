"""The folders of chat sessions in the mirror. `pull.folders` calls it.

A listing takes a new fence when it begins. Its rows, its absences and its result are one transaction, and only the
holder of the newest fence can write: an older listing never replaces the rows of a newer one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import astuple

from syncd.mirror.db import raw
from syncd.records.enums import FolderListingState
from syncd.records.fields import FOLDERS, FolderRow
from syncd.rules.folders import Place, paths

if TYPE_CHECKING:
    from sqlalchemy import Connection

_BEGIN = """
INSERT INTO folder_listing AS l (id, fence) VALUES (1, 1)
ON CONFLICT (id) DO UPDATE SET fence = l.fence + 1
RETURNING fence, state, error
"""
_END = """
UPDATE folder_listing SET state = ?, error = ?, finished_at = ?, complete_at = coalesce(?, complete_at)
WHERE id = 1 AND fence = ?
"""
_CONTENT = FOLDERS.columns
_LIVE = f"SELECT {', '.join(_CONTENT)}, path, absences FROM folders WHERE deleted_at IS NULL"  # noqa: S608 - constants
_WRITTEN = (*_CONTENT[1:], "path")
_CHANGED = " OR ".join(f"f.{name} IS DISTINCT FROM excluded.{name}" for name in _WRITTEN)
# The database compares `extra`: on PostgreSQL a JSON value comes back as another text than it was written.
_WRITE = f"""
INSERT INTO folders AS f (id, {", ".join(_WRITTEN)}, first_seen_at, changed_at)
VALUES ({", ".join("?" * (len(_WRITTEN) + 3))})
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _WRITTEN)},
    changed_at = excluded.changed_at, deleted_at = NULL,
    absences = CASE WHEN f.deleted_at IS NULL THEN f.absences ELSE 0 END
WHERE f.deleted_at IS NOT NULL OR {_CHANGED}
RETURNING id
"""  # noqa: S608 - constants
_NOTE_ABSENCE = "UPDATE folders SET absences = ?, deleted_at = ? WHERE id = ? AND deleted_at IS NULL"


class ListingLostError(Exception):
    """Another listing of the folders began after this one."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A listing that begins: its fence, and how the last one ended (None before the first)."""

    fence: int
    last_state: FolderListingState | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class StoredFolder:
    """A live folder of the mirror."""

    row: FolderRow
    path: str
    absences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldersRead:
    """The result of a listing.

    Parameters
    ----------
    rows : Mapping[str, FolderRow]
        The folders that it read, by id.
    absent : Collection[str]
        Ids of folders that no page had, although every page was read, and that Albert answered 404 or 410 for. A
        partial listing has some if its only defect is an item without an id.
    present : Collection[str]
        Ids that were seen without a readable folder.
    error : str | None
        Why the listing is not complete.
    """

    state: FolderListingState
    error: str | None = None
    rows: Mapping[str, FolderRow] = field(default_factory=dict)
    absent: Collection[str] = ()
    present: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class FoldersWritten:
    """What a listing changed: the number of live folders, and the ids that were written and deleted."""

    live: int
    changed: list[str]
    deleted: list[str]


def begin(connection: Connection) -> Begun:
    """Take the next fence."""
    row = raw.execute(connection, _BEGIN).fetchone()
    return Begun(row[0], None if row[1] is None else FolderListingState(row[1]), row[2])


def live(connection: Connection) -> dict[str, StoredFolder]:
    """Return the folders that are not deleted, by id."""
    rows = raw.execute(connection, _LIVE).fetchall()
    return {row[0]: StoredFolder(FolderRow(*row[: len(_CONTENT)]), row[-2], row[-1]) for row in rows}


def write(connection: Connection, fence: int, read: FoldersRead, *, now: str, confirmations: int) -> FoldersWritten:
    """Write the result of a listing.

    Parameters
    ----------
    now : str
        The time, as text of `clock.utc_text`.
    confirmations : int
        The number of absences in a row after which a folder is deleted.

    Raises
    ------
    ListingLostError
        Another listing began after this one; nothing was written.
    """
    complete_at = now if read.state is FolderListingState.COMPLETE else None
    ended = raw.execute(connection, _END, (read.state.value, read.error, now, complete_at, fence))
    if ended.rowcount != 1:
        raise ListingLostError("another listing of the folders began after this one")
    stored = live(connection)
    deleted = _note_absences(connection, stored, read, now, confirmations)
    rows = {row_id: folder.row for row_id, folder in stored.items() if row_id not in deleted}
    rows.update(read.rows)
    new_paths = paths({row_id: Place(row.name, row.parent_id) for row_id, row in rows.items()})
    changed = []
    for folder_id, row in rows.items():
        before = stored.get(folder_id)
        if before is not None and (before.row, before.path) == (row, new_paths[folder_id]):
            continue
        if _write_row(connection, row, new_paths[folder_id], now):
            changed.append(folder_id)
    return FoldersWritten(len(rows), changed, deleted)


def _note_absences(
    connection: Connection, stored: Mapping[str, StoredFolder], read: FoldersRead, now: str, confirmations: int
) -> list[str]:
    """Count absences, end those of folders that were seen, and return the ids that are deleted now."""
    deleted = []
    for folder_id, folder in stored.items():
        if folder_id in read.absent:
            count = folder.absences + 1
            if count >= confirmations:
                deleted.append(folder_id)
            at = now if count >= confirmations else None
            raw.execute(connection, _NOTE_ABSENCE, (count, at, folder_id))
        elif folder.absences and (folder_id in read.rows or folder_id in read.present):
            raw.execute(connection, _NOTE_ABSENCE, (0, None, folder_id))
    return deleted


def _write_row(connection: Connection, row: FolderRow, path: str, now: str) -> bool:
    """Write a folder; return whether that changed it."""
    values = (*astuple(row), path, now, now)
    return raw.execute(connection, _WRITE, values).fetchone() is not None
