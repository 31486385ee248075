"""The sessions, the effects of all changes, and the views of the sessions that may lag."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from syncd.sandbox.catalogue import Backlog, Catalogue, Change
from syncd.sandbox.generate import LAST
from syncd.sandbox.listing import Listing
from syncd.sandbox.session import Session, Wire, session_of, stamp

EffectKind = Literal["created", "updated", "deleted"]


@dataclass(frozen=True, slots=True)
class Effect:
    """A change of a session, whether or not its client received an answer."""

    number: int
    kind: EffectKind
    session_id: str
    source_session_id: str
    at: float


class Store:
    """The sessions.

    Only `_commit` changes them, and it appends exactly one effect.
    """

    def __init__(self, sessions: Iterable[Session], now: Callable[[], float]) -> None:
        self.truth = Catalogue(sessions)
        self.listing = Listing(self.truth.by_id.values(), "created")
        self.lookup = self.truth.copy()
        self.lookup_backlog = Backlog()
        self.effects: list[Effect] = []
        self._now = now
        self._numbers = len(self.truth.by_id)
        self._latest = LAST

    def create(self, wire: Wire, by: tuple[str, str]) -> Session:
        """Add a session; the server assigns its id unless the dict contains a free one."""
        self._numbers += 1
        chosen = wire.get("id") or self._free_id()
        if chosen in self.truth.by_id:
            raise ValueError(f"there is a live session {chosen!r} already")
        at = self._stamp()
        audit = {"by": by[0], "byName": by[1], "at": at}
        defaults = {
            "status": "active",
            "kind": "chat",
            "lastMessageAt": at,
            "Created": audit,
            "Updated": audit,
        }
        session = session_of({"id": chosen} | defaults | wire, self._numbers)
        self._commit("created", None, session)
        return session

    def update(self, id: str, changes: Wire, by: tuple[str, str]) -> Session:
        """Change fields; None removes a field. Raise KeyError without the session; an equal value has no effect."""
        before = self.truth.by_id[id]
        old = before.wire()
        new = {key: value for key, value in (old | changes).items() if value is not None}
        if new == old:
            return before
        if "Updated" not in changes:
            new["Updated"] = {"by": by[0], "byName": by[1], "at": self._stamp()}
        after = session_of(new, before.number)
        self._commit("updated", before, after)
        return after

    def delete(self, id: str) -> Session:
        """Remove a session; raise KeyError without the session."""
        before = self.truth.by_id[id]
        self._commit("deleted", before, None)
        return before

    def catch_up(self, listing_lag: float, lookup_lag: float) -> None:
        """Apply the changes that the views show by now."""
        now = self._now()
        self.listing.catch_up(now, listing_lag)
        for change in self.lookup_backlog.due(now, lookup_lag):
            self.lookup.apply(change)

    def _commit(self, kind: EffectKind, before: Session | None, after: Session | None) -> None:
        subject = after or before
        if subject is None:
            raise ValueError("a change has a session before it or after it")
        change = Change(self._now(), before, after)
        self.truth.apply(change)
        self.listing.backlog.note(change)
        self.lookup_backlog.note(change)
        self.effects.append(Effect(len(self.effects) + 1, kind, subject.id, subject.source, change.at))

    def _free_id(self) -> str:
        while f"SES{self._numbers}" in self.truth.by_id or f"SES{self._numbers}" in self.truth.gone:
            self._numbers += 1
        return f"SES{self._numbers}"

    def _stamp(self) -> str:
        # Audit times never decrease, even with a virtual clock that starts before the last generated time.
        self._latest = max(self._latest, self._now())
        return stamp(self._latest)
