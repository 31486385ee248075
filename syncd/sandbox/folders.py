"""The folders of chat sessions: the generated ones, changes to them, and the answers to requests for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from syncd.sandbox import answers, cursors
from syncd.sandbox.cursors import Cursor
from syncd.sandbox.generate import FIRST, FOLDERS, USERS
from syncd.sandbox.session import Wire, encode, stamp

if TYPE_CHECKING:
    from aiohttp import web

    from syncd.sandbox.habits import Habits
    from syncd.sandbox.wire import Query

ORDER: Final = "folders"
ROOTS: Final = 8
"""The first folders are at the top; every other folder is in one of them."""
_TOPICS: Final = (
    "Coatings", "Adhesives", "Sealants", "Inks", "Personal care", "Batteries", "Regulatory", "Suppliers",
    "Raw materials", "DoE", "Stability", "Scale-up",
)  # fmt: skip


class Folders:
    """The folders of the tenant by id, in the order of their creation; tests change them while the server runs."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.by_id: dict[str, Wire] = {
            folder_id: _generated(number, folder_id) for number, folder_id in enumerate(FOLDERS)
        }
        self.gone: set[str] = set()

    def create(self, *, name: str, parent_id: str | None = None, id: str | None = None, **fields: object) -> Wire:
        """Create a folder as another user; the id can be that of a deleted folder."""
        chosen = id or f"FOL{len(self.by_id) + len(self.gone) + 1}"
        audit = {"by": USERS[0][0], "byName": USERS[0][1], "at": stamp(self._now())}
        wire = {
            "id": chosen, "name": name, "type": "child" if parent_id else "root", "parentId": parent_id,
            "Created": audit, "Updated": audit, **fields,
        }  # fmt: skip
        self.by_id[chosen] = {key: value for key, value in wire.items() if value is not None}
        self.gone.discard(chosen)
        return self.by_id[chosen]

    def update(self, id: str, **fields: object) -> Wire:
        """Change fields by their names on the wire, None removes a field; raise KeyError without such a folder."""
        changed = self.by_id[id] | fields
        self.by_id[id] = {key: value for key, value in changed.items() if value is not None}
        return self.by_id[id]

    def delete(self, id: str) -> Wire:
        """Delete a folder; raise KeyError without such a folder."""
        wire = self.by_id.pop(id)
        self.gone.add(id)
        return wire

    def look_up(self, id: str, habits: Habits) -> web.Response:
        """Answer `GET /api/v3/chats/folders/{id}`."""
        if (wire := self.by_id.get(id)) is not None:
            return answers.json_bytes(encode(wire))
        return answers.problem(habits, habits.gone_status if id in self.gone else 404, "No such folder")

    def page(self, query: Query, habits: Habits) -> web.Response:
        """Answer `GET /api/v3/chats/folders`; a page begins after a number of folders."""
        after = 0
        if start := (query.get("startKey") or [""])[-1]:
            try:
                cursor = cursors.read(start)
            except ValueError:
                cursor = None
            if cursor is None or cursor.order != ORDER or cursor.after is None:
                return answers.problem(habits, habits.cursor_status, "startKey is expired or unknown")
            after = cursor.after[1]
        folders = [wire for wire in self.by_id.values() if _matches(wire, query)]
        items, end = folders[after : after + habits.page_size], after + habits.page_size
        body: Wire = {"Items": items}
        if end < len(folders):
            body["lastKey"] = cursors.write(Cursor(ORDER, ("", end), self._now()), awkward=habits.awkward_cursor)
        elif habits.final_key == "repeat":
            end_of_all = Cursor(ORDER, ("", len(folders)), self._now())
            at_the_end = start and after >= len(folders)
            body["lastKey"] = start if at_the_end else cursors.write(end_of_all, awkward=habits.awkward_cursor)
        return answers.json_bytes(encode(body))


def _generated(number: int, id: str) -> Wire:
    """Return a folder that is the same in every sandbox, at any date."""
    topic, turn = _TOPICS[number % len(_TOPICS)], number // len(_TOPICS)
    by, by_name = USERS[number % len(USERS)]
    audit = {"by": by, "byName": by_name, "at": stamp(FIRST + number * 3600)}
    wire: Wire = {"id": id, "name": f"{topic} {turn + 1}" if turn else topic, "type": "root"}
    if number >= ROOTS:
        wire |= {"type": "child", "parentId": FOLDERS[number % ROOTS]}
    return wire | {"Created": audit, "Updated": audit}


def _matches(wire: Wire, query: Query) -> bool:
    """Return whether a folder passes the name filter; fuzzy matching finds nothing, as the SDK's comments say."""
    if "name" not in query:
        return True
    return query.get("exactMatch") == ["true"] and wire["name"] in query["name"]
