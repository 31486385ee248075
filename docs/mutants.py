"""The table of mutants in `docs/reliability.md`, made from the list. `docs.generate` writes it."""

from __future__ import annotations

from pathlib import Path

from tests.mutants.mutants import MUTANTS

PAGE = Path(__file__).parent / "reliability.md"
BEGIN, END = "<!-- the table of mutants, made by docs/mutants.py -->\n", "<!-- its end -->\n"


def render() -> str:
    """Return the page with the present table."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}{_table()}{END}{after}"


def _table() -> str:
    lines = ["| mutant: the changed program | file | killed by |", "| --- | --- | --- |"]
    for mutant in MUTANTS:
        file, _, function = mutant.test.partition("::")
        test = f"`{function.partition('[')[0]}` in `{file}`"
        lines.append(f"| {mutant.meaning} | `{mutant.file}` | {test} |")
    return "\n".join(lines) + "\n"
