"""The page's plots as inline SVG: bars of the last passes, and counts by state. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from syncd.mirror.schema.enums import CHANGES, ENDED
from syncd.status.health import duration

WIDTH, HEIGHT, BASE, TOP = 480, 130, 112, 18
BARS = 48
LABEL, COUNT = 102, 70


def seconds(value: float) -> str:
    """Write a duration with a fraction where it is short."""
    return f"{value:.1f} s" if value < 9.95 else duration(value)  # noqa: PLR2004 - where the fraction stops to matter


def durations(passes: Sequence[Mapping[str, Any]]) -> str:
    """Draw how long passes took, oldest first; the colour shows how each ended."""
    shown = passes[-BARS:]
    values = [(row["finished_at"] - row["started_at"]).total_seconds() for row in shown]
    bars = [[(row["state"], value)] for row, value in zip(shown, values, strict=True)]
    titles = [f"pass {row['id']}: {seconds(value)}, {row['state']}" for row, value in zip(shown, values, strict=True)]
    names = [name for name in ENDED if any(row["state"] == name for row in shown)]
    return _bars(bars, titles, "longest", seconds) + _legend(names)


def changes(passes: Sequence[Mapping[str, Any]]) -> str:
    """Draw how many sessions passes changed, oldest first."""
    shown = passes[-BARS:]
    bars = [[(name, float(row[name])) for name in CHANGES] for row in shown]
    titles = [f"pass {row['id']}: " + ", ".join(f"{row[name]} {name}" for name in CHANGES) for row in shown]
    drawn = _bars(bars, titles, "most", lambda value: f"{value:,.0f}")
    return drawn + (_legend(CHANGES) if shown else "")


def states(counts: Mapping[str, int], order: Sequence[str]) -> str:
    """Draw counts by state, one line each; the length is logarithmic, so that one dead operation is seen."""
    longest = math.log1p(max([1, *counts.values()]))
    room, step = WIDTH - LABEL - COUNT, 24
    lines = []
    for place, name in enumerate(order):
        count, y = counts.get(name, 0), place * step
        width = room * math.log1p(count) / longest
        lines.append(
            f'<text x="0" y="{y + 15}">{escape(name)}</text>'
            f'<rect class="{escape(name)}" x="{LABEL}" y="{y + 4}" width="{width:.1f}" height="14" rx="3"/>'
            f'<text class="v" x="{LABEL + width + 6:.1f}" y="{y + 15}">{count:,}</text>'
        )
    summary = ", ".join(f"{counts.get(name, 0)} {name}" for name in order)
    return _svg(len(order) * step, summary, "".join(lines))


def _bars(
    bars: Sequence[Sequence[tuple[str, float]]],
    titles: Sequence[str],
    what: str,
    write: Callable[[float], str],
) -> str:
    """Draw stacked bars on a square root scale: small ones stay visible beside one that is much higher."""
    if not bars:
        return "<p>No pass has ended yet.</p>"
    highest = max(sum(value for _, value in parts) for parts in bars)
    step = WIDTH / max(len(bars), 12)
    drawn = []
    for place, (parts, title) in enumerate(zip(bars, titles, strict=True)):
        y, rects, total = float(BASE), [], sum(value for _, value in parts)
        for name, value in parts:
            height = (BASE - TOP) * (total / highest) ** 0.5 * value / total if total else 0.0
            if height:
                height = max(height, 1.5)
                y -= height
                rects.append(
                    f'<rect class="{escape(name)}" x="{place * step + 1:.1f}" y="{y:.1f}" '
                    f'width="{step - 2:.1f}" height="{height:.1f}"/>'
                )
        drawn.append(f"<g><title>{escape(title)}</title>{''.join(rects)}</g>")
    axis = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{BASE}" y2="{BASE}"/>'
    label = f'<text x="0" y="12">{escape(what)} {escape(write(highest))}, square root scale</text>'
    ends = (
        f'<text x="0" y="{HEIGHT - 3}">oldest</text><text x="{WIDTH}" y="{HEIGHT - 3}" text-anchor="end">newest</text>'
    )
    return _svg(HEIGHT, f"{len(bars)} passes, {what} {write(highest)}", axis + label + "".join(drawn) + ends)


def _svg(height: int, label: str, inner: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{inner}</svg>'


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="{escape(name)}" width="10" height="10" rx="2"/>'
        f"</svg>{escape(name)}</li>"
        for name in names
    )
    return f'<ul class="legend">{items}</ul>'
