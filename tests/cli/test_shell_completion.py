"""Shell completion, with the lines that docs/commands.md gives, in the shells that are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BINARIES = Path(sys.executable).parent
WITH_SYNCD = {"PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}"}
LINES = {
    shell: line
    for line, shell in re.findall(
        r"^(\S.*\S) +# (bash|zsh|fish)\b", (ROOT / "docs/commands.md").read_text(), re.MULTILINE
    )
}

pytestmark = pytest.mark.slow


def in_shell(shell: str, script: str) -> str:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-c", script], env=WITH_SYNCD, capture_output=True, text=True, check=True, timeout=50)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("line", "index", "expected"),
    [
        ("syncd oper", 1, ["operations"]),
        ("syncd operations re", 2, ["release", "retry"]),
        ("syncd operations list --state d", 4, ["dead"]),
        ("syncd export folder --format ", 4, ["parquet", "csv", "jsonl"]),
    ],
)
def test_bash_completes_commands_and_values(line: str, index: int, expected: list[str]) -> None:
    script = f"""
        {LINES["bash"]}
        COMP_WORDS=({line}) COMP_CWORD={index}
        _syncd_completion syncd
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert in_shell("bash", script).split() == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_line_for_the_shell_is_accepted(shell: str) -> None:
    start = "autoload -U compinit; compinit -u; " if shell == "zsh" else ""
    in_shell(shell, start + LINES[shell])


def test_each_documented_shell_has_a_completion_script() -> None:
    assert set(LINES) == {"bash", "zsh", "fish"}
    for shell in LINES:
        asked = WITH_SYNCD | {"_SYNCD_COMPLETE": f"{shell}_source"}
        done = subprocess.run(["syncd"], env=asked, capture_output=True, text=True, check=True, timeout=50)
        assert "_syncd_completion" in done.stdout
