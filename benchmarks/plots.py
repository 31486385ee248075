"""Writes plots as SVG without a library: lines on logarithmic axes, stacked bars and a histogram."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 90, 20, 70, 50
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")
PIECES = 40
"""The number of bars of a histogram."""

Line = Sequence[tuple[float, float]]


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#d0d0d0"/>'


def _svg(title: str, parts: Iterable[str], height: float = HEIGHT) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif" '
        f'fill="#222" role="img" aria-label="{escape(title)}">'
    )
    lines = [
        head,
        _rect(0, 0, WIDTH, height, "#fff"),
        _text(LEFT, 24, title, "start", 16),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _legend(names: Iterable[str]) -> list[str]:
    parts, x = [], float(LEFT)
    for name, colour in zip(names, COLOURS, strict=False):
        parts += [_rect(x, 40, 12, 12, colour), _text(x + 17, 50, name, "start")]
        x += 34 + 7 * len(name)
    return parts


def _short(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def lines(title: str, by: Mapping[str, Line], x_name: str, y_name: str) -> str:
    """Draw lines through points; both axes are logarithmic and marked at the powers of ten."""
    xs, ys = zip(*(point for line in by.values() for point in line), strict=True)
    x_low, x_high = math.floor(math.log10(min(xs)) + 1e-9), math.ceil(math.log10(max(xs)) - 1e-9)
    y_low, y_high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / max(x_high - x_low, 1)
        up = (math.log10(y) - y_low) / max(y_high - y_low, 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = _legend(by)
    for power in range(x_low, x_high + 1):
        x, y = place(10.0**power, 10.0**y_low)
        parts += [_rule(x, TOP, x, y), _text(x, y + 18, _short(10.0**power))]
    for power in range(y_low, y_high + 1):
        x, y = place(10.0**x_low, 10.0**power)
        parts += [_rule(x, y, WIDTH - RIGHT, y), _text(x - 8, y + 4, _short(10.0**power), "end")]
    for line, colour in zip(by.values(), COLOURS, strict=False):
        places = [place(*point) for point in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places]
    parts += [_text(WIDTH / 2, HEIGHT - 10, x_name), _text(LEFT - 8, TOP - 8, y_name, "end")]
    return _svg(title, parts)


def bars(title: str, by: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Draw one bar for each name, made of stages one after the other."""
    left, height = 230, TOP + 34 * len(by) + BOTTOM
    longest = max(sum(stages.values()) for stages in by.values())
    scale = (WIDTH - left - 80) / longest
    parts = _legend(next(iter(by.values())))
    for number, (name, stages) in enumerate(by.items()):
        y, x = TOP + 34 * number, float(left)
        parts.append(_text(left - 8, y + 16, name, "end"))
        for seconds, colour in zip(stages.values(), COLOURS, strict=False):
            parts.append(_rect(x, y, seconds * scale, 24, colour))
            x += seconds * scale
        parts.append(_text(x + 6, y + 16, f"{sum(stages.values()):.2f}", "start"))
    parts.append(_text(left, height - 15, unit, "start"))
    return _svg(title, parts, height)


def histogram(title: str, values: Sequence[float], unit: str) -> str:
    """Draw a histogram of values."""
    longest = max(values)
    counts = [0] * PIECES
    for value in values:
        counts[min(int(value / longest * PIECES), PIECES - 1)] += 1
    wide, high = (WIDTH - LEFT - RIGHT) / PIECES, (HEIGHT - TOP - BOTTOM) / max(counts)
    floor = HEIGHT - BOTTOM
    parts = [
        _rect(LEFT + wide * number, floor - count * high, wide - 1, count * high, COLOURS[0])
        for number, count in enumerate(counts)
    ]
    for part in range(5):
        x = LEFT + (WIDTH - LEFT - RIGHT) * part / 4
        parts.append(_text(x, floor + 18, f"{longest * part / 4:.0f} {unit}"))
    parts += [_rule(LEFT, floor, WIDTH - RIGHT, floor), _text(LEFT - 8, TOP + 4, f"{max(counts)} times", "end")]
    return _svg(title, parts)
