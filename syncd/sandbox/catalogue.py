"""The existing sessions, by id and by source id, and the ids of deleted ones."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from syncd.sandbox.session import Session


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a session: `before` is None for a create, `after` for a delete."""

    at: float
    before: Session | None
    after: Session | None


class Backlog:
    """Changes that a part of the server does not show yet."""

    def __init__(self) -> None:
        self._waiting: deque[Change] = deque()

    def note(self, change: Change) -> None:
        """Queue a change."""
        self._waiting.append(change)

    def due(self, now: float, lag: float) -> Iterator[Change]:
        """Remove and yield the changes that are visible by now, oldest first; they stay visible."""
        while self._waiting and (lag <= 0 or self._waiting[0].at + lag <= now):
            yield self._waiting.popleft()


class Catalogue:
    """An index of sessions by id and by source id."""

    def __init__(self, sessions: Iterable[Session] = ()) -> None:
        self.by_id: dict[str, Session] = {}
        self.gone: set[str] = set()
        self.ids_of_source: dict[str, tuple[str, ...]] = {}
        for session in sessions:
            self._put(session)

    def copy(self) -> Self:
        """Return an independent index of the same live sessions."""
        twin = type(self)()
        twin.by_id |= self.by_id
        twin.ids_of_source |= self.ids_of_source
        return twin

    def of_source(self, source: str) -> Session | None:
        """Return the oldest session that carries the source id."""
        ids = self.ids_of_source.get(source)
        return self.by_id[ids[0]] if ids else None

    def apply(self, change: Change) -> None:
        """Apply a change."""
        before, after = change.before, change.after
        if before is not None and after is not None and before.source == after.source:
            self.by_id[after.id] = after  # its place among the sessions of the source id stays
            return
        if before is not None:
            self._drop(before)
        if after is not None:
            self._put(after)

    def _put(self, session: Session) -> None:
        ids = self.ids_of_source.get(session.source, ())
        self.ids_of_source[session.source] = (*ids, session.id)
        self.by_id[session.id] = session
        self.gone.discard(session.id)

    def _drop(self, session: Session) -> None:
        rest = tuple(each for each in self.ids_of_source[session.source] if each != session.id)
        if rest:
            self.ids_of_source[session.source] = rest
        else:
            del self.ids_of_source[session.source]
        del self.by_id[session.id]
        self.gone.add(session.id)
