"""The page at `/`: is the mirror fresh, what needs me, what to type. For someone who was woken up.

No name of a session is on it, and no words of Albert's or of a database row: reasons are told by their kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

from syncd.mirror.schema import enums
from syncd.records.enums import PassReason
from syncd.status import plots
from syncd.status.health import duration, notices, problems, remedy
from syncd.status.style import STYLE

if TYPE_CHECKING:
    from syncd.mirror.read.stats import Snapshot

REFRESH_SECONDS = 30
OTHERWISE = "see the log"
LAST_SHOWN = 6

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="$refresh">
<meta name="color-scheme" content="light dark">
<title>$title · syncd</title>
<link rel="icon" href="data:,">
<style nonce="$nonce">$style</style>
</head>
<body>
<header class="$tone">
<p class="brand">syncd</p>
<h1>$verdict</h1>
<p class="sub">$sub</p>
</header>
<main>
$needs
$body
</main>
<footer>$at · refreshes every $refresh s ·
<a href="/metrics">metrics</a> · <a href="/readyz">readiness</a></footer>
</body>
</html>
""")


def render(
    snapshot: Snapshot | None, *, pass_interval: float, refused: bool, waiting: bool, trouble: str | None, nonce: str
) -> str:
    """Return the page.

    Parameters
    ----------
    snapshot : Snapshot | None
        None when the database cannot be read.
    pass_interval : float
        Seconds between the starts of passes.
    refused : bool
        Whether Albert refuses the credentials.
    waiting : bool
        Whether writes wait for a lock or for room on the disk.
    trouble : str | None
        What is wrong with the daemon itself.
    nonce : str
        What the Content-Security-Policy lets the page's style by.
    """
    needs = [trouble] if trouble else []
    if refused:
        needs.append("Albert refuses the credentials; the queue rests; mend them, then run: syncd doctor")
    if waiting:
        needs.append(
            "writes wait for a lock or for room on the disk, and go on by themselves; see: df -h, syncd doctor"
        )
    overview = None if snapshot is None else told_by_kind(snapshot.overview)
    if overview is not None:
        needs += _problems(overview, pass_interval)
    worth_a_look = [] if overview is None else notices(overview)
    verdict, sub = _verdict(overview, needs, worth_a_look)
    return _PAGE.substitute(
        refresh=REFRESH_SECONDS,
        title=escape(verdict),
        nonce=escape(nonce),
        style=STYLE,
        tone={"Fresh": "fresh", "Starting": "starting"}.get(verdict, "needs"),
        verdict=escape(verdict),
        sub=escape(sub),
        needs=_list(needs, "todo", "What to do") + _list(worth_a_look, "look", "Worth a look"),
        body="" if overview is None else _body(overview),
        at="Not read" if snapshot is None else f"Read at {snapshot.at:%Y-%m-%d %H:%M:%S} UTC",
    )


def told_by_kind(overview: Mapping[str, Any]) -> dict[str, Any]:
    """Return an overview whose passes give their reasons by code, without any text that came from outside."""
    passes = [{**row, "error": kind(row["error"], row["reason"])} for row in overview["passes"]]
    return {**overview, "passes": passes}


def kind(error: str | None, reason: str | None) -> str | None:
    """Return a phrase for the reason of a pass; None for a pass without one.

    A newer syncd may have written a code that this one does not know.
    """
    if error is None:
        return None
    return PassReason(reason).text if reason in set(PassReason) else OTHERWISE


def _problems(overview: Mapping[str, Any], pass_interval: float) -> list[str]:
    """Return what needs a person; beside a running daemon, a mirror without a complete pass may just be young."""
    found = problems(overview, pass_interval=pass_interval)
    if overview["freshness"]["age_seconds"] is not None:
        return found
    ended = [row for row in overview["passes"] if row["finished_at"] is not None]
    if not ended:
        return found[1:]
    why = f": pass {ended[0]['id']} is {ended[0]['state']} ({ended[0]['error']})"
    return [f"no pass has been completed yet{why}; {remedy(ended[0], 'run: syncd doctor')}", *found[1:]]


def _verdict(overview: Mapping[str, Any] | None, needs: Sequence[str], worth_a_look: Sequence[str]) -> tuple[str, str]:
    if overview is None:
        return "Needs you", "nothing is known of the mirror right now"
    fresh = overview["freshness"]
    age = fresh["age_seconds"]
    sessions = f"{fresh['live_sessions']:,} live sessions"
    sub = f"{sessions}; no pass has been completed yet" if age is None else f"{sessions}, as of {duration(age)} ago"
    if needs:
        return "Needs you", sub
    if age is None:
        return "Starting", f"{sessions} so far; the first pass is under way. Nothing to do."
    return "Fresh", f"{sub}. {'Nothing urgent' if worth_a_look else 'Nothing to do'}."


def _list(found: Sequence[str], style: str, title: str) -> str:
    if not found:
        return ""
    items = "\n".join(f"<li>{_with_command(one)}</li>" for one in found)
    return f'<section class="{style}"><h2>{title}</h2><ul>\n{items}\n</ul></section>'


def _with_command(need: str) -> str:
    """Set the command to type apart: what follows the last `run: `."""
    words, told, command = need.rpartition("run: ")
    if not told:
        return escape(need)
    return f"{escape(words.rstrip().rstrip(';'))}<code>{escape(command)}</code>"


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
            _plot("Queue", plots.states(overview["operations"], enums.OPERATIONS)),
            _plot("Source ids", plots.states(overview["sources"], enums.SOURCES)),
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
    words = "".join(f"<th>{name}</th>" for name in ("pass", "began, UTC", "state"))
    head = words + "".join(f'<th class="n">{name}</th>' for name in ("took", "seen", "changed"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
