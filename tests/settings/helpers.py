"""Loading settings in tests: the problems of an environment, and files of variables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def pipe(text: str) -> Iterator[Path]:
    """Give the path of a pipe with a text, as a shell does for `<(command)`."""
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    try:
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)
