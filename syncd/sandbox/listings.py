"""One page of the listing: its start, its items, and its key for the next page."""

from collections.abc import Callable

from aiohttp import web

from syncd.sandbox import answers, cursors
from syncd.sandbox.cursors import Cursor
from syncd.sandbox.filters import wanted_by
from syncd.sandbox.habits import Habits
from syncd.sandbox.listing import Position, Slice
from syncd.sandbox.session import encode, render
from syncd.sandbox.store import Store
from syncd.sandbox.wire import Query


class Pages:
    """Answers `GET /api/v3/chats/sessions`."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now

    def answer(self, query: Query, habits: Habits) -> web.Response:
        """Return the page of a query; an empty `startKey` means the first page."""
        start = (query.get("startKey") or [""])[-1]
        cursor = None
        if start:
            cursor = self._cursor(start, habits)
            if cursor is None:
                return answers.problem(habits, habits.cursor_status, "startKey is expired or unknown")
        if habits.hollow_pages and cursor is not None and not cursor.hollow:
            return _page([], self._key(cursor.after, habits, hollow=True))
        wanted = wanted_by(query, fuzzy=habits.fuzzy_matching, unlisted=frozenset(habits.unlisted))
        after = cursor.after if cursor else None
        page = self._store.listing.page(habits.order, after, habits.page_size, wanted)
        items = [render(session, extra_fields=habits.extra_fields) for session in page.sessions]
        if cursor is None and habits.broken_items:
            items[1:1] = [encode(item) for item in habits.broken_items]
        return _page(items, self._last_key(page, start, habits))

    def _cursor(self, text: str, habits: Habits) -> Cursor | None:
        try:
            cursor = cursors.read(text)
        except ValueError:
            return None
        expired = habits.cursor_ttl is not None and self._now() - cursor.issued_at > habits.cursor_ttl
        return None if expired or cursor.order != habits.order else cursor

    def _last_key(self, page: Slice, start: str, habits: Habits) -> bytes:
        """Return the JSON of `lastKey`; empty if the page has none."""
        if page.more:
            return self._key(page.last, habits)
        if habits.final_key == "repeat":
            # When nothing is left, the key of the request is returned again and again.
            return encode(start) if start and not page.sessions else self._key(page.last, habits)
        if habits.final_key == "empty_page" and page.sessions:
            return self._key(page.last, habits)
        return {"null": b"null", "empty": b'""'}.get(habits.final_key, b"")

    def _key(self, after: Position | None, habits: Habits, *, hollow: bool = False) -> bytes:
        cursor = Cursor(habits.order, after, self._now(), hollow)
        return encode(cursors.write(cursor, awkward=habits.awkward_cursor))


def _page(items: list[bytes], last_key: bytes) -> web.Response:
    tail = b',"lastKey":' + last_key if last_key else b""
    return answers.json_bytes(b'{"Items":[' + b",".join(items) + b"]" + tail + b"}")
