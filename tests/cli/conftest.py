"""Run the commands in the process of the tests, which saves the start of an interpreter."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from syncd.cli import main


@dataclass(frozen=True)
class Called:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Called]


@pytest.fixture
def syncd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that calls a command in an empty folder, as `syncd ARGUMENTS` does."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("SYNCD_", "ALBERT_")):
            monkeypatch.delenv(name)

    def call(*arguments: str, given: bytes = b"") -> Called:
        monkeypatch.setattr(sys, "argv", ["syncd", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Called(ended.value.code, printed.out, printed.err)

    return call
