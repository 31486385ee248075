"""The table of all problems in `docs/operations.md`, made from the codes. `docs.generate` writes it."""

from __future__ import annotations

from pathlib import Path

from syncd.status.problem_codes import PROBLEMS

PAGE = Path(__file__).parent / "operations.md"
BEGIN, END = "<!-- the table of problems, made by docs/problems.py -->\n", "<!-- its end -->\n"


def render() -> str:
    """Return the page with the present table."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}{_table()}{END}{after}"


def _table() -> str:
    lines = ["| code | meaning | how urgent | `/readyz` | alert |", "| --- | --- | --- | --- | --- |"]
    for code, kind in PROBLEMS.items():
        alert = "" if kind.alert is None else f"[{kind.alert}](#{kind.alert.lower()})"
        urgency = "needs you" if kind.urgent else "worth a look"
        lines.append(f"| `{code.value}` | {kind.meaning} | {urgency} | {200 if kind.ready else 503} | {alert} |")
    return "\n".join(lines) + "\n"
