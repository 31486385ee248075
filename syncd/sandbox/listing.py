"""The sessions in the order in which they are listed, and the start and end of pages.

As in a key-paginated store, a page begins after a sort position and not after a count. A reader that has passed the
position does not see sessions that are inserted or moved before it. A deletion makes no session appear twice.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from syncd.sandbox.catalogue import Backlog, Change
from syncd.sandbox.habits import Order
from syncd.sandbox.session import Session

Position = tuple[str, int]
Wanted = Callable[[Session], bool]

POSITIONS: dict[Order, Callable[[Session], Position]] = {
    "created": lambda session: ("", session.number),
    "updated": lambda session: (session.updated_at, session.number),
    "id": lambda session: (session.id, session.number),
    "newest": lambda session: ("", -session.number),
}


@dataclass(frozen=True, slots=True)
class Slice:
    """The sessions of one page, the position of the last of them, and whether more sessions of the filter follow."""

    sessions: list[Session]
    last: Position | None
    more: bool


class Listing:
    """Sessions and their positions, as two lists that are kept sorted together."""

    def __init__(self, sessions: Iterable[Session], order: Order) -> None:
        self.backlog = Backlog()
        self._sort(sessions, order)

    def catch_up(self, now: float, lag: float) -> None:
        """Apply the changes that are visible by now."""
        for change in self.backlog.due(now, lag):
            self._apply(change)

    def page(self, order: Order, after: Position | None, size: int, wanted: Wanted | None) -> Slice:
        """Return up to `size` sessions after a position; without a filter this reads one page only."""
        if order != self._order:
            self._sort(self._sessions, order)
        start = 0 if after is None else bisect_right(self._positions, after)
        if wanted is None:
            indexes = list(range(start, min(start + size + 1, len(self._sessions))))
        else:
            indexes = self._matching(start, size + 1, wanted)
        taken = indexes[:size]
        return Slice(
            sessions=[self._sessions[index] for index in taken],
            last=self._positions[taken[-1]] if taken else None,
            more=len(indexes) > size,
        )

    def _matching(self, start: int, limit: int, wanted: Wanted) -> list[int]:
        indexes: list[int] = []
        for index in range(start, len(self._sessions)):
            if wanted(self._sessions[index]):
                indexes.append(index)
                if len(indexes) == limit:
                    break
        return indexes

    def _sort(self, sessions: Iterable[Session], order: Order) -> None:
        self._order = order
        self._position = POSITIONS[order]
        self._sessions = sorted(sessions, key=self._position)
        self._positions = [self._position(session) for session in self._sessions]

    def _apply(self, change: Change) -> None:
        if change.before is not None:
            index = bisect_left(self._positions, self._position(change.before))
            del self._positions[index], self._sessions[index]
        if change.after is not None:
            position = self._position(change.after)
            index = bisect_left(self._positions, position)
            self._positions.insert(index, position)
            self._sessions.insert(index, change.after)
