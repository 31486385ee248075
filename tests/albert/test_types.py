"""The documented examples type-check with mypy in strict mode without a plugin, and with basedpyright."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("README.md", "docs/library.md")
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    )
    if "syncd.albert" in block
]
GIVEN = 'BASE_URL = "https://app.albertinvent.com"\nTOKEN = "secret"\n'
"""What the pages take as given."""
WRONG = """
from syncd.albert import ChatSession

made = ChatSession(name="n", source_session_id="s", parentid="FOL1")
"""


def checkers(folder: Path, file: Path) -> list[list[str]]:
    configuration = folder / "mypy.ini"
    configuration.write_text("[mypy]\nstrict = true\nplugins =\n")
    binaries = Path(sys.executable).parent
    return [
        [str(binaries / "mypy"), f"--config-file={configuration}", f"--cache-dir={ROOT / '.mypy_cache'}", str(file)],
        [str(binaries / "basedpyright"), "--level", "error", "--pythonpath", sys.executable, str(file)],
    ]  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("example", EXAMPLES)
def test_documented_example_type_checks(tmp_path: Path, example: str) -> None:
    file = tmp_path / "example.py"
    future = "from __future__ import annotations\n" if "from __future__" not in example else ""
    file.write_text(future + GIVEN + example)
    for command in checkers(tmp_path, file):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_misspelled_keyword_is_found_by_both_checkers(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    for command in checkers(tmp_path, file):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 1, command
        assert "parentid" in done.stdout
