"""What is wrong, in words that a tired person understands, each with the command to type. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncd.records.enums import PassReason, PassState
from syncd.rules.identity import Identity, same_tenant

MISSED_PASSES = 3
"""Intervals without a complete pass after which the mirror counts as stale."""
QUARANTINE = "run: syncd quarantine list, and for items that may be ignored: syncd quarantine accept ID"
LEEWAY = 60.0
"""Seconds on top of them, for the passes' own length."""


def problems(overview: Mapping[str, Any], *, pass_interval: float, named: Identity | None = None) -> list[str]:
    """Say what needs a person; nothing when all is well.

    Parameters
    ----------
    overview : Mapping[str, Any]
        What `mirror.views.overview` returns.
    pass_interval : float
        Seconds between the starts of passes.
    named : Identity | None
        The tenant that the settings name; None where that is known to be the one of the database.
    """
    fresh = overview["freshness"]
    found = []
    age = fresh["age_seconds"]
    last = next((row for row in overview["passes"] if row["state"] != "running"), None)
    why = f" (pass {last['id']} is {last['state']}: {last['error']})" if last and last["error"] else ""
    if age is None:
        found.append(
            f"no pass has been completed yet{why}; {remedy(last, 'run: syncd once, or see the log of syncd run')}"
        )
    elif age > MISSED_PASSES * pass_interval + LEEWAY:
        found.append(f"the mirror is {duration(age)} old{why}; {remedy(last, 'is syncd run alive? run: syncd doctor')}")
    elif last and last["state"] in {"failed", "partial"}:
        otherwise = "the next one may be; if it is not, run: syncd doctor"
        found.append(f"the last pass was not complete{why}; {remedy(last, otherwise)}")
    if fresh["held_pass_id"] is not None:
        held = fresh["held_pass_id"]
        found.append(f"pass {held} holds deletions for your decision; run: syncd deletions list")
    elif last and last["state"] == PassState.HELD and last["reason"] == PassReason.KNOWN_SESSIONS_GONE:
        found.append(
            f"pass {last['id']} is held although its hold was rejected, because Albert knows none of the sessions that "
            "it requested first; fix the credentials or ALBERT_BASE_URL, or run: syncd deletions list --all"
        )
    if fresh["operations_dead"]:
        found.append(dead_operations(fresh["operations_dead"]))
    return [*identity_problems(overview["identity"], named), *found]


def identity_problems(identity: Mapping[str, Any], named: Identity | None) -> list[str]:
    """Say why the database does not act, or does not apply operations, although nothing failed.

    Parameters
    ----------
    identity : Mapping[str, Any]
        What `mirror.read.views.stored_identity` returns.
    named : Identity | None
        The tenant that the settings name, if they are to be compared.
    """
    found, pinned = [], Identity(identity["origin"], identity["tenant_id"])
    if identity["moved_to"] is not None:
        found.append(
            f"the database was moved to {identity['moved_to']} and does not act; point SYNCD_DATABASE_URL there, or "
            "use this one again: syncd migrate-store --unmark"
        )
    if named is not None and not same_tenant(pinned, named):
        found.append(
            f"the database mirrors {pinned}, but the settings name {named}; fix ALBERT_BASE_URL or the credentials, "
            "or run: syncd tenant accept"
        )
    if count := identity["operations_on_hold"]:
        held = _counted(count, "operation is on hold", "operations are on hold")
        found.append(f"{held} since a restore; run: syncd operations list, then release or cancel them")
    return found


def remedy(ended: Mapping[str, Any] | None, otherwise: str) -> str:
    """Return what to do about passes that end as the last one did."""
    return QUARANTINE if ended is not None and ended["reason"] == PassReason.ITEM_WITHOUT_ID else otherwise


def dead_operations(count: int) -> str:
    """Say that operations are dead."""
    return f"{_counted(count, 'operation is dead', 'operations are dead')}; run: syncd operations list --state dead"


def notices(overview: Mapping[str, Any]) -> list[str]:
    """Say what is worth a look by day: nothing is at stake, and the mirror counts as healthy."""
    unreadable = overview["freshness"]["quarantined_items"]
    conflicts, unknown = overview["sources"].get("conflict", 0), overview["operations"].get("unknown", 0)
    found = []
    if unreadable:
        items = _counted(unreadable, "listed item cannot be read", "listed items cannot be read")
        found.append(f"{items}; run: syncd quarantine list")
    if conflicts:
        ids = _counted(conflicts, "source id is contradictory", "source ids are contradictory")
        found.append(f"{ids}; run: syncd sources list --state conflict")
    if unknown:
        lost = _counted(unknown, "operation's answer was lost", "operations' answers were lost")
        found.append(f"{lost}; look-ups settle it by themselves; run: syncd operations list --state unknown")
    return found


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def duration(seconds: float) -> str:
    """Write a duration for people: 45 s, 12 min, 3 h, 2 days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
