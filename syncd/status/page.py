"""The page at `/`: freshness, problems, and the command for each. For a person on call.

No name of a session is on it, and no text of Albert or of a database row: reasons are given by their kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from syncd.mirror.schema import enums
from syncd.status import plots
from syncd.status.health import duration
from syncd.status.snapshot import without_foreign_text

if TYPE_CHECKING:
    from syncd.mirror.read.stats import Snapshot
    from syncd.status.health import Health, Problem
    from syncd.status.snapshot import DaemonIdentity

REFRESH_SECONDS = 30
LAST_SHOWN = 6

_PAGE = Template((files("syncd.status") / "page.html").read_text(encoding="utf-8"))
_STYLE = (files("syncd.status") / "page.css").read_text(encoding="utf-8")


def render(health: Health, snapshot: Snapshot | None, *, identity: DaemonIdentity, nonce: str) -> str:
    """Return the page.

    Parameters
    ----------
    snapshot : Snapshot | None
        None when the database cannot be read.
    nonce : str
        The nonce by which the Content-Security-Policy allows the page's style.
    """
    overview = None if snapshot is None else without_foreign_text(snapshot.overview)
    verdict, sub = _verdict(overview, health)
    return _PAGE.substitute(
        refresh=REFRESH_SECONDS,
        title=escape(verdict),
        nonce=escape(nonce),
        style=_STYLE,
        tone={"Fresh": "fresh", "Starting": "starting"}.get(verdict, "needs"),
        verdict=escape(verdict),
        sub=escape(sub),
        needs=_list(health.problems, "todo", "What to do") + _list(health.notices, "look", "Worth a look"),
        body="" if overview is None else _body(overview),
        who=escape(_identity(identity, snapshot)),
        at="Not read" if snapshot is None else f"Read at {snapshot.at:%Y-%m-%d %H:%M:%S} UTC",
    )


def _identity(identity: DaemonIdentity, snapshot: Snapshot | None) -> str:
    """Return the identity of the daemon and of its tenant."""
    tenant = identity.tenant()
    albert = identity.origin if tenant is None else f"{identity.origin}, tenant {tenant}"
    others = 0 if snapshot is None else len(snapshot.replicas)
    role = "" if others < 2 else f" ({'takes the passes' if identity.leads() else 'on standby'}, {others} replicas)"  # noqa: PLR2004 - two
    return f"syncd {identity.version} on {identity.host}{role} · {albert}"


def _verdict(overview: Mapping[str, Any] | None, health: Health) -> tuple[str, str]:
    if overview is None:
        return "Needs you", "nothing is known of the mirror right now"
    fresh = overview["freshness"]
    age = fresh["age_seconds"]
    sessions = f"{fresh['live_sessions']:,} live sessions"
    sub = f"{sessions}; no pass has been complete yet" if age is None else f"{sessions}, as of {duration(age)} ago"
    if not health.healthy:
        return "Needs you", sub
    if age is None:
        return "Starting", f"{sessions} so far; the first pass is under way. Nothing to do."
    return "Fresh", f"{sub}. {'Nothing urgent' if health.notices else 'Nothing to do'}."


def _list(problems: Sequence[Problem], style: str, title: str) -> str:
    if not problems:
        return ""
    items = "\n".join(f'<li id="{problem.code.value}">{_item(problem)}</li>' for problem in problems)
    return f'<section class="{style}"><h2>{title}</h2><ul>\n{items}\n</ul></section>'


def _item(problem: Problem) -> str:
    """Return a problem as HTML, with the command in an element of its own."""
    command = "" if problem.command is None else f"<code>{escape(problem.command)}</code>"
    return f"{escape(problem.text)}{command}"


def _body(overview: Mapping[str, Any]) -> str:
    passes = list(reversed(overview["passes"]))
    ended = [row for row in passes if row["finished_at"] is not None]
    fresh = overview["freshness"]
    facts = {
        "live": fresh["live_sessions"],
        "missing": fresh["missing_sessions"],
        "deleted": fresh["deleted_sessions"],
        "in quarantine": fresh["quarantined_items"],
    }
    return "\n".join(
        (
            f'<section class="wide"><h2>Sessions</h2><dl class="facts">{_facts(facts)}</dl></section>',
            _plot("Duration of the last passes", plots.durations(ended)),
            _plot("What they changed", plots.changes(ended)),
            _plot("Queue (logarithmic scale)", plots.states(overview["operations"], enums.OPERATIONS)),
            _plot("Source ids (logarithmic scale)", plots.states(overview["sources"], enums.SOURCES)),
            f'<section class="wide"><h2>Last passes</h2>{_table(overview["passes"][:LAST_SHOWN])}</section>',
        )
    )


def _facts(facts: Mapping[str, int]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{count:,}</dd></div>" for name, count in facts.items())


def _plot(title: str, svg: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{svg}</section>"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p>No pass yet.</p>"
    lines = []
    for row in rows:
        ended = row["finished_at"]
        took = "…" if ended is None else plots.seconds((ended - row["started_at"]).total_seconds())
        changed = sum(row[name] for name in enums.CHANGES)
        why = f"<br><small>{escape(row['error'])}</small>" if row["error"] else ""
        lines.append(
            f"<tr><td>{row['id']}</td><td>{row['started_at']:%m-%d %H:%M}</td>"
            f'<td><span class="state {escape(row["state"])}">{escape(row["state"])}</span>{why}</td>'
            f'<td class="n">{took}</td><td class="n">{row["seen"]:,}</td><td class="n">{changed:,}</td></tr>'
        )
    headings = "".join(f"<th>{name}</th>" for name in ("pass", "began, UTC", "state"))
    head = headings + "".join(f'<th class="n">{name}</th>' for name in ("took", "seen", "changed"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
