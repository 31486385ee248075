"""The documented examples type-check with mypy in strict mode without a plugin, and with basedpyright."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/library.md")
GIVEN = 'BASE_URL = "https://app.albertinvent.com"\nTOKEN = "secret"\n'
"""The names that the examples use without defining them."""
WRONG = """
from syncd.albert import ChatSession

made = ChatSession(name="n", source_session_id="s", parentid="FOL1")
"""
CHECKERS = ("mypy", "basedpyright")


def check(checker: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Check all files of a folder in one call, because a checker needs seconds to start."""
    program = Path(sys.executable).parent / checker
    configuration = folder / "mypy.ini"
    configuration.write_text("[mypy]\nstrict = true\nplugins =\n")
    options = {
        "mypy": [f"--config-file={configuration}", f"--cache-dir={ROOT / '.mypy_cache' / 'examples'}"],
        "basedpyright": ["--level", "error", "--pythonpath", sys.executable],
    }
    files = sorted(map(str, folder.glob("*.py")))
    return subprocess.run(
        [program, *options[checker], *files], capture_output=True, text=True, check=False, cwd=ROOT
    )  # fmt: skip


def examples() -> dict[str, str]:
    """Return the examples that use the library, by a file name made of the page and a number."""
    files = {}
    for page in PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks):
            if "syncd.albert" in block:
                files[f"{Path(page).stem.lower()}_{number}.py"] = block
    return files


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_documented_examples_type_check(tmp_path: Path, checker: str) -> None:
    blocks = examples()
    assert {name.partition("_")[0] for name in blocks} == {"readme", "library"}
    for name, block in blocks.items():
        future = "" if "from __future__" in block else "from __future__ import annotations\n"
        (tmp_path / name).write_text(future + GIVEN + block)
    done = check(checker, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_misspelled_keyword_fails_type_checking(tmp_path: Path, checker: str) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    done = check(checker, tmp_path)
    assert done.returncode == 1
    assert "parentid" in done.stdout
