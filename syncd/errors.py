"""The errors that end a command. Each has an exit code of `docs/commands.md`, and its message says what to do.

::

    SyncdError                      exit 1: the work failed or needs a person
    ├── UsageError                  exit 2: found before anything is contacted
    │   ├── SettingsError           every problem of the settings at once
    │   └── TenantMismatchError     the settings name another tenant than the database mirrors
    └── DatabaseUnusableError       exit 3: corrupt, foreign, newer, held by another daemon
        ├── DatabaseMovedError      migrate-store moved its content to another database
        ├── DatabaseReplacedError   the file under the running program is not the one that it opened
        └── DatabaseBusyError       waited as long as a command may
            └── DatabaseAwayError   a lock, a full disk or a server out of reach: waiting helps
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence


def how_to_install(extra: str) -> str:
    """Return the command that installs an optional extra into the environment that runs."""
    return f"{shlex.quote(sys.executable)} -m pip install 'syncd[{extra}]'"


class SyncdError(Exception):
    """The work failed or needs a person."""

    exit_code = 1


class UsageError(SyncdError):
    """The command was called wrongly; nothing was contacted."""

    exit_code = 2


class SettingsError(UsageError):
    """The settings do not make sense; `problems` lists all that is wrong with them."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class TenantMismatchError(UsageError):
    """The settings name another Albert tenant than the database mirrors; nothing was written or sent."""


class DatabaseUnusableError(SyncdError):
    """The database cannot be used as it is, and syncd will not try to repair it."""

    exit_code = 3


class DatabaseMovedError(DatabaseUnusableError):
    """`syncd migrate-store` moved the content of this database to another one."""


class DatabaseReplacedError(DatabaseUnusableError):
    """The database file was replaced or removed under the running program."""


class DatabaseBusyError(DatabaseUnusableError):
    """Another program held the database, or the disk was full, for longer than a command may wait."""


class DatabaseAwayError(DatabaseBusyError):
    """A lock of another program, a full disk, or a server that cannot be reached: waiting helps."""
