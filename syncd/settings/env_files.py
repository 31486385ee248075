"""Environment files: lines of `NAME=value`, each with its place.

`docs/settings.md` compares this with how Docker and systemd read such a file; `tests/settings/test_env_files.py` runs
the three.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from syncd.settings.names import is_ours
from syncd.settings.secret_files import UnreadableFileError, read_text
from syncd.visible_text import quoted

_NO_NAME = re.compile(r"[^A-Za-z0-9_]")
"""Characters that the name of a setting cannot contain, such as a quotation mark or an invisible character."""


@dataclass(frozen=True)
class Given:
    """A value as it was given; `origin` is `environment`, or the file and the line."""

    name: str
    value: str
    origin: str


def read_env_file(file: Path, named_by: str, problems: list[str], pipes: dict[Path, str] | None = None) -> list[Given]:
    """Return the values of an environment file and append what is wrong with it to `problems`.

    `named_by` is the option or setting that names the file, and `pipes` are those of `read_text`.

    A line that is not `NAME=value` is a problem, because it may be a mistyped setting. Its text is not repeated: it may
    be a secret.
    """
    from dotenv.parser import parse_stream  # noqa: PLC0415 - most commands are called without a file

    try:
        text = read_text(file, pipes)
    except UnreadableFileError as error:
        problems.append(f"{named_by}: the environment file {quoted(str(file))} cannot be read: {error}")
        return []
    variables = []
    for binding in parse_stream(StringIO(text)):
        line = binding.original.line + _blank_lines(binding.original.string)
        if binding.error or (binding.key is not None and binding.value is None):
            problems.append(
                f"{file}:{line}: not NAME=value, such as SYNCD_PASS_INTERVAL=300, or a quotation mark is not closed"
            )
        elif binding.key is not None and is_ours(plain := _NO_NAME.sub("", binding.key)) and plain != binding.key:
            problems.append(f"{file}:{line}: {quoted(binding.key)} is not a name; write {plain}=...")
        elif binding.key is not None:
            variables.append(Given(binding.key, binding.value or "", f"{file}:{line}"))
    return variables


def _blank_lines(text: str) -> int:
    """Return the number of empty lines before a binding, which the parser counts as a part of it."""
    return text[: len(text) - len(text.lstrip())].count("\n")
