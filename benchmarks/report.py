"""Writes the table, the plots, and the generated parts of `docs/performance.md` from `results.json`.

`python -m benchmarks.report` writes them again without measuring anything.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import plots
from benchmarks.machine import ROOT
from benchmarks.results import exponent

RESULTS = ROOT / "benchmarks" / "results.json"
PEERS = ROOT / "benchmarks" / "peers.json"
ANALYSTS = ROOT / "benchmarks" / "analysts.json"
STARTUP = ROOT / "benchmarks" / "startup.json"
LONG_QUEUE = ROOT / "benchmarks" / "long_queue.json"
DOCS = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "plots"
WRITTEN = (RESULTS, DOCS, PLOTS)
STORES = ("sqlite", "postgresql")
HEAD = ("what", "value", "floor", "ratio (spread)", "target", "met")


def number(value: float) -> str:
    """Write a number with about three significant digits."""
    size = abs(value)
    digits = 0 if size >= 100 or value == int(value) else 1 if size >= 20 else 2 if size >= 0.1 else 3
    return f"{value:,.{digits}f}"


def row(figure: Mapping[str, Any]) -> tuple[str, ...]:
    """Write one figure as a row of the table."""
    value = f"{number(figure['value'])} {figure['unit']}"
    floor = "" if figure["floor"] is None else f"{number(figure['floor'])} {figure['unit']}"
    spread = f"{number(figure['low'])} to {number(figure['high'])}" if figure["rounds"] > 1 else ""
    measured = "" if figure["ratio"] is None else number(figure["ratio"])
    ratio = f"{measured} ({spread})".strip() if spread else measured
    target = f"{figure['sense']} {number(figure['target'])}" if figure["sense"] != "=" else number(figure["target"])
    return figure["title"], value, floor, ratio, target, "yes" if figure["met"] else "**no**"


def table(figures: Iterable[Mapping[str, Any]], head: tuple[str, ...] = HEAD) -> str:
    """Write the figures as a table in Markdown, aligned for reading on a terminal."""
    return markdown([head, *map(row, figures)])


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """Write rows, the first of which is the head, as a table in Markdown."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("-" * w for w in widths) + " |", *lines[1:]])


def machine(results: Mapping[str, Any]) -> str:
    """Describe the machine and the time of the measurements."""
    on, load = results["machine"], results["load_average"]
    packages = ", ".join(f"{name} {version}" for name, version in on["packages"].items() if version)
    return (
        f"Taken {results['taken_at']} in {results['seconds']} s on {on['cores']} cores ({on['processor']}), "
        f"{on['memory_mb'] / 1024:.0f} GB, {on['system']}, {on['filesystem']}; Python {on['python']}, "
        f"{packages}. Load average before {load['before']}, after {load['after']}. If the load before the "
        "run is above 2, the machine was not quiet, and wall times are of little use."
    )


def section(results: Mapping[str, Any]) -> str:
    """Write the table of one kind of database."""
    scale = results["scale"]
    about = (
        f"{results['database']}; {scale['sessions']:,} sessions unless a row names another number, "
        f"{scale['rounds']} rounds."
    )
    return f"{about}\n\n{table(results['figures'])}"


def peers(results: Mapping[str, Any]) -> str:
    """Write the table of the peers."""
    rows: list[tuple[str, ...]] = [
        ("variant", "page", "CPU, s", "CPU / floor", "CPU / syncd", "wall, s", "peak RSS, MB")
    ]
    for page, taken in results["pages"].items():
        middle = {name: {key: statistics.median(o[key] for o in took) for key in ("cpu", "wall", "rss")}
                  for name, took in taken.items()}  # fmt: skip
        rows += [
            (name, page, number(medians["cpu"]), number(medians["cpu"] / middle["floor"]["cpu"]),
             number(medians["cpu"] / middle["syncd"]["cpu"]), number(medians["wall"]), number(medians["rss"]))
            for name, medians in middle.items()
        ]  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    about = (
        f"Taken {results['taken_at']}, {results['sessions']:,} sessions, {results['rounds']} interleaved rounds, "
        f"load average before {results['load_average']['before']}; {versions}."
    )
    return f"{about}\n\n{table(results['figures'])}\n\n{markdown(rows)}"


def draw(results: Mapping[str, Any]) -> dict[str, str]:
    """Draw the plots: name to SVG."""
    rate = {
        f"{kind}, {title}": [(n, n / took["wall"]) for n, took in results[name]["growth"][kind]]
        for name, title in zip(STORES, ("SQLite", "PostgreSQL"), strict=True)
        for kind in ("first", "unchanged")
    }
    drawn = {
        "throughput": plots.lines(
            "Sessions a second by size of a pass (pages of 1,000)", rate, "sessions", "sessions / s"
        ),
        "stages": plots.bars("CPU by stage", results["sqlite"]["stages"], "s of CPU"),
    }
    for name, suffix in zip(STORES, ("", "-postgresql"), strict=True):
        database, cpu = results[name]["database"], {}
        for kind, taken in results[name]["growth"].items():
            line = [(n, took["cpu"] + took["server"]) for n, took in taken]
            cpu[f"{kind}: exponent {exponent(line):.2f}"] = line
        title = f"CPU by size, with the fitted exponent, {database}"
        drawn[f"growth{suffix}"] = plots.lines(title, cpu, "sessions or creates", "s of CPU")
        title = f"From INSERT to the request on the wire, {database}"
        drawn[f"latency{suffix}"] = plots.histogram(title, results[name]["wire_ms"], "ms")
    return drawn


def replace(text: str, name: str, body: str) -> str:
    """Put a generated part between its markers.

    Raises
    ------
    ValueError
        The markers are not there.
    """
    begin, end = f"<!-- {name}: generated -->\n", f"\n<!-- /{name} -->"
    head, opened, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"no place for the part {name!r}")
    return f"{head}{begin}\n{body}\n{end}{tail}"


def write() -> None:
    """Write the plots and the generated parts of the docs."""
    text = DOCS.read_text()
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text())
        PLOTS.mkdir(exist_ok=True)
        for name, svg in draw(results).items():
            (PLOTS / f"{name}.svg").write_text(svg)
        text = replace(text, "machine", machine(results))
        for name in STORES:
            text = replace(text, name, section(results[name]))
    if PEERS.exists():
        text = replace(text, "peers", peers(json.loads(PEERS.read_text())))
    if ANALYSTS.exists():
        from benchmarks.analysts import section as analysts  # it imports this module

        text = replace(text, "analysts", analysts(json.loads(ANALYSTS.read_text())))
    if STARTUP.exists():
        from benchmarks.startup import section as startup  # it imports this module

        text = replace(text, "startup", startup(json.loads(STARTUP.read_text())))
    if LONG_QUEUE.exists():
        from benchmarks.long_queue import section as long_queue  # it imports this module

        text = replace(text, "long-queue", long_queue(json.loads(LONG_QUEUE.read_text())))
    DOCS.write_text(text)


if __name__ == "__main__":
    write()
