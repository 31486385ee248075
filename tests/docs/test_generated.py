"""The files that `docs.generate` writes are the same as those that the code makes now."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from syncd.mirror.read.queries import Dialect
from syncd.mirror.read.questions import QUERIES
from tests.helpers.programs import ROOT

DOCS = ROOT / "docs"


def test_generated_docs_match_the_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_docs_show_every_query_word_for_word() -> None:
    blocks = re.findall(r"```sql\n(.*?);\n```", (DOCS / "queries.md").read_text(encoding="utf-8"), re.DOTALL)
    dialects: tuple[Dialect, ...] = ("sqlite", "postgresql")
    assert set(blocks) == {query.sql(dialect) for query in QUERIES for dialect in dialects}
