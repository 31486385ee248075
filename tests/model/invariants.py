"""The ten invariants of the design, checked in the database after every commit.

The checker has a connection of its own, so it sees only committed data. Number 10 (secrets) is about processes: see
`tests/security`.
"""

from __future__ import annotations

from typing import Any

from pyroaring import BitMap64

from syncd.mirror.store.pages import unpack
from syncd.records.fields import SESSIONS, SessionRow
from syncd.rules.deletion import Guard
from tests.model.albert import Tenant
from tests.model.store import Store, Values

OPEN = frozenset({"pending", "running", "unknown"})
FINAL = frozenset({"succeeded", "dead", "cancelled"})
MEASURED = 0.001
"""Seconds by which a measured time may differ from the true one: the product counts whole milliseconds."""
ACTIVE = ("pending", "running", "unknown", "dead")
KINDS = {"DELETE": "delete", "PATCH": "update"}
"""The kind of operation that may send a request of a method to a session."""
COUNTS = ("inserted", "updated", "unchanged", "restored")

FEED = "SELECT seq FROM chat_session_changes WHERE seq > {} ORDER BY seq"
KEPT = "SELECT live_sessions, deleted_sessions FROM mirror_freshness"

State = dict[Any, dict[str, Any]]


def _content(row: dict[str, Any]) -> SessionRow:
    return SessionRow(**{name: row[name] for name in SESSIONS.columns})


class _Table:
    """A table's rows by their key; those that are as they were when it was last read are the same objects."""

    def __init__(self, store: Store, name: str, key: str = "id") -> None:
        self._store = store
        self._columns = store.columns(name)
        self._key = self._columns.index(key)
        self._statement = f"SELECT * FROM {name}"
        self._known: dict[Values, dict[str, Any]] = {}

    def read(self) -> State:
        known, self._known, rows = self._known, {}, {}
        for values in self._store.rows(self._statement):
            row = known.get(values)
            if row is None:
                row = dict(zip(self._columns, values, strict=True))
            self._known[values] = row
            rows[values[self._key]] = row
        return rows


class BrokenError(BaseException):
    """An invariant does not hold; no code of the product may catch that."""


class Checker:
    """Checks the database after every commit, and compares it with its state before."""

    def __init__(self, store: Store, tenant: Tenant, guard: Guard) -> None:
        self._store = store
        self.tenant = tenant
        self.guard = guard
        self.operator: set[int] = set()
        """Operations that the operator has just decided on."""
        self.held: set[int] = set()
        """Operations that were open in a restored backup and were not released."""
        self.commits = 0
        self._claims: dict[int, float] = {}
        self._gone: dict[str, float] = {}
        self._tables = {name: _Table(store, name) for name in ("sessions", "operations", "passes")}
        self._sessions: State = {}
        self._operations: State = {}
        self._passes: State = {}
        self._pages: set[tuple[int, int]] = set()
        self._approved: set[int] = set()
        self._kept: set[int] = set()
        """Keys of the sessions of approved and of rejected holds, as of the last commit."""
        self._missing_at: dict[str, float] = {}
        """When a session was marked as missing, in time that no clock step changes."""
        self._read_up_to = 0
        self._versions_read = 0
        self._live = 0
        """The most sessions that were live since the running pass began: the guard counts them once, in its middle."""

    def look(self) -> None:
        """Check all that is visible after a commit."""
        self.commits += 1
        sessions, operations, passes = (table.read() for table in self._tables.values())
        running = [row for row in passes.values() if row["state"] == "running"]
        pages = []
        if running:
            pages = self._store.rows(
                "SELECT pass_id, number, next_key, sessions FROM pages "
                f"WHERE pass_id = {running[0]['id']} ORDER BY number"
            )
        self._checkpoints(sessions, running, pages)
        self._values(sessions)
        self._tombstones(sessions, passes)
        self._queue(operations, sessions)
        self._counts(passes)
        self._feed(sessions)
        self._sessions, self._operations, self._passes = sessions, operations, passes
        self._holds()
        self.operator = set()

    def _feed(self, sessions: State) -> None:
        """Compare the content of a reader of the change feed with the versions, and the kept counts with the rows."""
        fresh = [row[0] for row in self._store.rows(FEED.format(self._read_up_to))]
        self._read_up_to = fresh[-1] if fresh else self._read_up_to
        self._versions_read += len(fresh)
        if len(set(fresh)) != len(fresh):
            raise BrokenError(f"the change feed gives a number twice: {fresh}")
        written = sum(row["version"] for row in sessions.values())
        if self._versions_read != written:
            raise BrokenError(f"a reader of the change feed has {self._versions_read} of {written} versions")
        live = sum(row["deleted_at"] is None for row in sessions.values())
        kept = tuple(self._store.rows(KEPT)[0])
        if kept != (live, len(sessions) - live):
            raise BrokenError(f"the kept counts are {kept}, and {live} of {len(sessions)} sessions are live")

    def _checkpoints(self, sessions: State, running: list[dict[str, Any]], pages: list[Values]) -> None:
        """1: a committed checkpoint implies that the rows of all earlier pages of that pass are committed."""
        for place, (pass_id, number, next_key, keys) in enumerate(pages, 1):
            if place != number:
                raise BrokenError(f"1: page {place} of pass {pass_id} is not there")
            if (pass_id, number) not in self._pages:
                self._pages.add((pass_id, number))
                self._page(sessions, f"{number} of pass {pass_id}", next_key, unpack(keys))
        last = pages[-1][2] if pages else None
        for row in running:
            if row["page_key"] != last:
                raise BrokenError(f"1: the checkpoint of pass {row['id']} is not that of its last page")

    def _page(self, sessions: State, name: str, next_key: str | None, keys: BitMap64) -> None:
        by_key = {row["key"]: row for row in sessions.values()}
        ids = {by_key[key]["id"] for key in keys if key in by_key}
        if len(ids) != len(keys):
            raise BrokenError(f"1: page {name} names sessions that are not there")
        for session_id in ids:
            if sessions[session_id]["missing_since"] is not None and sessions[session_id]["deleted_at"] is None:
                raise BrokenError(f"4: {session_id} was listed on page {name} and is still missing")
        if not any(ids <= said for said in self.tenant.served.pages[next_key]):
            raise BrokenError(f"1: page {name} is not one that was served: {ids}")

    def _values(self, sessions: State) -> None:
        """2 and 3: every value was once served, and no row goes back to an older version."""
        for session_id, row in sessions.items():
            before = self._sessions.get(session_id)
            if before is row:
                continue
            content = _content(row)
            if before is not None and _content(before) == content:
                continue
            if content not in self.tenant.served.said[session_id]:
                raise BrokenError(f"2: {session_id} holds what was never served: {content}")
            versions = self.tenant.served.rows[session_id]
            if before is not None:
                old = versions[_content(before)]
                if versions[content] < old and session_id not in self.tenant.served.misdated:
                    raise BrokenError(f"3: {session_id} went back from version {old} to {versions[content]}")
        for session_id, row in self._sessions.items():
            if session_id not in sessions:
                raise BrokenError(f"2: the row of {session_id} is gone")
            if sessions[session_id]["version"] < row["version"]:
                raise BrokenError(f"3: the version of {session_id} went back")

    def _tombstones(self, sessions: State, passes: State) -> None:
        """4: tombstones only with 404s, from complete passes, and within the guard unless approved."""
        fresh: dict[int, int] = {}
        for session_id, row in sessions.items():
            before = self._sessions.get(session_id)
            if before is row or row["deleted_at"] is None or before is None or before["deleted_at"] is not None:
                continue
            if row["pass_id"] is None:
                continue  # an operation deleted it, or found it gone
            if passes[row["pass_id"]]["state"] != "complete":
                raise BrokenError(f"4: {session_id} was deleted by a pass that is {passes[row['pass_id']]['state']}")
            approved = row["key"] in self._approved
            if row["key"] in self._kept:
                raise BrokenError(f"4: {session_id} was deleted although an operator keeps it")
            said = len(self.tenant.served.absences[session_id])
            if said < (1 if approved else self.guard.confirmations):
                raise BrokenError(f"4: {session_id} was deleted after {said} answers of 404")
            missing_for = self.tenant.now() - self._missing_at.get(session_id, self.tenant.now())
            if not approved and missing_for < self.guard.grace - MEASURED:
                raise BrokenError(f"4: {session_id} was deleted after {missing_for} seconds")
            if not approved:
                fresh[row["pass_id"]] = fresh.get(row["pass_id"], 0) + 1
        limit = self.guard.limit(self._live)
        if any(count > limit for count in fresh.values()):
            raise BrokenError(f"4: {fresh} of {self._live} were deleted, the guard allows {limit}")
        self._note_missing(sessions)
        live = sum(row["deleted_at"] is None for row in sessions.values())
        goes_on = any(row["state"] == "running" for row in passes.values())
        self._live = max(self._live, live) if goes_on else live

    def restored(self) -> None:
        """Take the database as it is now: it was replaced by an older copy.

        Nothing before it counts, except since when sessions are missing: a grace that began before the backup goes on.
        """
        self._sessions, self._operations, self._passes = (table.read() for table in self._tables.values())
        self._claims.clear()
        self._gone.clear()
        self._pages.clear()
        self._versions_read = sum(row["version"] for row in self._sessions.values())
        self._live = sum(row["deleted_at"] is None for row in self._sessions.values())
        self.held = {number for number, row in self._operations.items() if row["state"] in OPEN}

    def _note_missing(self, sessions: State) -> None:
        for session_id, row in sessions.items():
            if row["missing_since"] is None:
                self._missing_at.pop(session_id, None)
            else:
                self._missing_at.setdefault(session_id, self.tenant.now())

    def _holds(self) -> None:
        """Note what operators have decided, and that at most one hold is open."""
        rows = self._store.rows(
            "SELECT h.state, x.session_key FROM holds AS h LEFT JOIN hold_sessions AS x ON x.hold_id = h.id "
            "WHERE h.state = 'approved' OR (h.state = 'rejected' AND h.reason <> 'known_sessions_gone')"
        )
        self._approved = {key for state, key in rows if state == "approved"}
        self._kept = {key for state, key in rows if state == "rejected"}

    def claimed(self, method: str, item: str, source: str | None) -> None:
        """5: every request that changes Albert has an earlier durable claim, and its operation is not on hold."""
        for row in self._operations.values():
            if row["state"] != "running" or row["lease_owner"] is None:
                continue
            if row["id"] in self.held:
                raise BrokenError(f"5: operation {row['id']} is of a restored backup and was not released")
            if method == "POST" and row["kind"] == "create" and row["source_session_id"] == source:
                return
            if KINDS.get(method) == row["kind"] and item in {row["session_id"], row["target_session_id"]}:
                return
        raise BrokenError(f"5: {method} {item or source} was sent without a claim")

    def _queue(self, operations: State, sessions: State) -> None:  # noqa: C901 - one rule after the other
        """7 and 8: finished operations have their effect, final states stay, one operation at a time for a key."""
        busy: set[tuple[str, str]] = set()
        for number, row in operations.items():
            before = self._operations.get(number)
            if row["state"] in {"running", "unknown"}:
                for name in ("source_session_id", "session_id"):
                    if row[name] is not None and (name, row[name]) in busy:
                        raise BrokenError(f"8: two operations on {row[name]} are running or unknown")
                    busy.add((name, row[name] or f"none {number}"))
            if before is None or before is row:
                continue
            if row["fence"] > before["fence"]:
                self._claims[number] = self.tenant.now()
            if row["fence"] < before["fence"]:
                raise BrokenError(f"8: the fence of operation {number} went back")
            if before["state"] in FINAL and row["state"] != before["state"] and number not in self.operator:
                raise BrokenError(f"8: operation {number} went from {before['state']} to {row['state']}")
            if row["state"] == "running" and row["lease_until"] is None:
                raise BrokenError(f"8: operation {number} runs without a lease")
            if row["state"] == "succeeded" and before["state"] != "succeeded":
                self._succeeded(row, sessions)

    def _succeeded(self, row: dict[str, Any], sessions: State) -> None:
        if row["kind"] == "delete":
            self._deleted(row, sessions)
        elif row["kind"] == "update":
            self._updated(row)
        else:
            self._created(row, sessions)

    def _deleted(self, row: dict[str, Any], sessions: State) -> None:
        number, session_id = row["id"], row["result_session_id"]
        store = self.tenant.store.truth
        there = store.by_id.get(session_id) if session_id else store.of_source(row["source_session_id"])
        if there is not None and there.source not in self.tenant.served.foreign:
            raise BrokenError(f"7: operation {number} deleted {session_id}, and Albert still has {there.id}")
        # a session that the mirror had never seen leaves a tombstone only when an answer that lags brings it
        if session_id in self._sessions:
            self._gone[session_id] = self.tenant.now()
            if sessions[session_id]["deleted_at"] is None:
                raise BrokenError(f"7: operation {number} deleted {session_id}, which is still live")

    def _updated(self, row: dict[str, Any]) -> None:
        if row["name"] and (row["result_session_id"], row["name"]) not in self.tenant.served.updated:
            raise BrokenError(f"7: operation {row['id']} updated {row['result_session_id']}, which never had that name")

    def _created(self, row: dict[str, Any], sessions: State) -> None:
        number, session_id = row["id"], row["result_session_id"]
        result = sessions.get(session_id)
        if result is None:
            raise BrokenError(f"7: operation {number} names {session_id}, which is not there")
        requested = {row["source_session_id"]}
        if self.tenant.renames and self.tenant.finds_both:
            requested.add(row["source_session_id"].upper())
        if result["source_session_id"] not in requested:
            raise BrokenError(f"7: operation {number} names a session of another source")
        ours = row["source_session_id"] not in self.tenant.served.foreign
        there = session_id in self.tenant.store.truth.by_id
        if ours and not there and self._gone.get(session_id, float("inf")) < self._claims[number]:
            raise BrokenError(f"7: operation {number} names a session that syncd had deleted before")

    def _counts(self, passes: State) -> None:
        for number, row in passes.items():
            before = self._passes.get(number)
            if before is row:
                continue
            if before is not None and before["state"] != "running" and before["state"] != row["state"]:
                raise BrokenError(f"8: pass {number} went from {before['state']} to {row['state']}")
            with_id = row["quarantined"] - row["without_id"]
            if sum(row[name] for name in COUNTS) + with_id != row["seen"] or min(row[name] for name in COUNTS) < 0:
                raise BrokenError(f"the counts of pass {number} do not add up: {row}")

    def duplicates(self, lag: float, settle: float) -> None:
        """6: a source id gets at most one session while look-ups lag by less than the settle time."""
        if lag >= settle:
            return
        doubled = [source for source in self.tenant.served.doubled if source not in self.tenant.served.foreign]
        if doubled:
            raise BrokenError(f"6: {doubled} got a second session")

    def converged(self) -> None:
        """9: the mirror equals the API, and every operation is final or visibly blocked."""
        truth = self.tenant.truth()
        mirror = {session_id: _content(row) for session_id, row in self._sessions.items() if row["deleted_at"] is None}
        if mirror != truth:
            wrong = {
                session_id
                for session_id in truth.keys() | mirror.keys()
                if truth.get(session_id) != mirror.get(session_id)
            }
            differences = [
                f"{session_id}: there {truth.get(session_id)}, here {mirror.get(session_id)}, "
                f"{self._sessions.get(session_id)}"
                for session_id in wrong
            ]
            raise BrokenError("9: the mirror is not the API: " + "; ".join(differences))
        stuck: list[dict[str, Any]] = []
        for _, row in sorted(self._operations.items()):
            if row["state"] == "dead" or (
                row["state"] not in FINAL and any(self._alike(row, earlier) for earlier in stuck)
            ):
                stuck.append(row)
            elif row["state"] not in FINAL:
                raise BrokenError(f"9: operation {row['id']} is {row['state']} and nothing blocks it: {row}")
        self._history()
        self._sources(truth)

    def _alike(self, row: dict[str, Any], earlier: dict[str, Any]) -> bool:
        """Whether two operations are on one key, as far as the mirror knows which session a source id belongs to."""
        own, its = self._sessions.get(row["session_id"]), self._sessions.get(earlier["session_id"])
        return (
            any(earlier[name] == row[name] is not None for name in ("source_session_id", "session_id"))
            or (own is not None and own["source_session_id"] == earlier["source_session_id"])
            or (its is not None and its["source_session_id"] == row["source_session_id"] and its["deleted_at"] is None)
        )

    def _history(self) -> None:
        last: dict[str, Any] = {}
        for session_id, valid_from, valid_to, change in self._store.rows(
            "SELECT session_id, valid_from, valid_to, change FROM chat_session_history "
            "ORDER BY session_id, valid_from, coalesce(valid_to, '9999-12-31T23:59:59.999999Z'), change <> 'created'"
        ):
            if session_id in last and last[session_id] != valid_from:
                raise BrokenError(f"9: the history of {session_id} has a gap at {valid_from}")
            if (session_id not in last) != (change == "created"):
                raise BrokenError(f"9: the history of {session_id} begins with {change}")
            last[session_id] = valid_to
        if len(last) != len(self._sessions):
            raise BrokenError("9: a session has no history")

    def _sources(self, truth: dict[str, Any]) -> None:
        known = _Table(self._store, "source_sessions", "source_session_id").read()
        carriers: dict[str, set[str]] = {}
        for session_id, row in truth.items():
            carriers.setdefault(row.source_session_id, set()).add(session_id)
        for source, ids in carriers.items():
            row = known.get(source)
            want = "linked" if len(ids) == 1 else "conflict"
            if row is None or row["state"] != want or (want == "linked" and row["session_id"] not in ids):
                raise BrokenError(f"9: the source id {source} of {ids} is {row}")
        busy = {row["source_session_id"] for row in self._operations.values() if row["state"] in {"pending", "unknown"}}
        for source, row in known.items():
            settled = (
                row["state"] == "missing"
                or "cannot be sent" in (row["note"] or "")
                or "too long" in (row["note"] or "")
                or (self.tenant.renames and self.tenant.finds_both and "Albert answers with" in (row["note"] or ""))
            )
            if source not in carriers and source not in busy and not settled:
                raise BrokenError(f"9: the source id {source}, which no session carries, is {row}")
