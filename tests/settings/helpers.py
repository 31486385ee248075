"""Loading settings in tests: the problems of an environment, and files of variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.errors import SettingsError
from syncd.settings import load

SECRET = "canary-secret-value"


def problems(environment: dict[str, str], *files: Path, credentials: bool = False) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environment, files, credentials=credentials)
    return caught.value.problems


def env_file(folder: Path, text: str, name: str = "syncd.env") -> Path:
    file = folder / name
    file.write_text(text)
    return file
