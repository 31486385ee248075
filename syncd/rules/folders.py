"""The paths of folders; `mirror.store.folders` calls it.

Pure: no I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SEPARATOR = " / "
"""Between the names in a path."""


class Place(NamedTuple):
    """The name of a folder, and the folder that it is in."""

    name: str
    parent_id: str | None


def paths(places: Mapping[str, Place]) -> dict[str, str]:
    """Return the path of each folder: the names from the top to the folder.

    A path begins below a folder that is not known. Of folders that contain each other, each path begins with the
    folder after the one that it would name a second time.
    """
    return {folder_id: SEPARATOR.join(_names(folder_id, places)) for folder_id in places}


def _names(folder_id: str, places: Mapping[str, Place]) -> list[str]:
    names: list[str] = []
    seen: set[str] = set()
    current: str | None = folder_id
    while current is not None and current in places and current not in seen:
        seen.add(current)
        names.append(places[current].name)
        current = places[current].parent_id
    return names[::-1]
