"""The version of this syncd, for the command line, the metrics, the status page and the `User-Agent` header."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def program_version() -> str:
    """Return the version of the installed package; in a checkout that is not installed, that of `pyproject.toml`."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow, and most commands need none

    try:
        return version("syncd")
    except PackageNotFoundError:
        return _of_checkout(Path(__file__).resolve().parents[1] / "pyproject.toml")


def _of_checkout(file: Path) -> str:
    import tomllib  # noqa: PLC0415 - only without an installed package

    try:
        return str(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, KeyError):
        return "unknown"
