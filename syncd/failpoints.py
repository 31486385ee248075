"""Places where a test ends the process with SIGKILL: every commit and every request passes through one.

A place is named by what stands at the call: for a commit the function whose work it is, for a request its method and
what its path points at. Nobody has to list them: a recording run finds them all, those that are added later too.

The environment variable `FAILPOINT` switches them on, and nothing else can:

- `record=FILE` appends a line for each place passed,
- `kill=N` ends the process at the N-th place passed.

Off, a place costs the look at `ON`.
"""

from __future__ import annotations

import os
import signal

_HOW, _, _WHAT = os.environ.get("FAILPOINT", "").partition("=")
ON = _HOW in {"record", "kill"}
"""Whether there is anything to do; look at it before naming a place."""

_passed = 0


def hit(place: str) -> None:
    """Pass a place."""
    global _passed  # noqa: PLW0603 - one process, one count
    _passed += 1
    if _HOW == "record":
        with open(_WHAT, "a", encoding="utf-8") as file:  # noqa: PTH123 - no path object for a test's file
            file.write(f"{place}\n")
    elif _passed == int(_WHAT):
        os.kill(os.getpid(), signal.SIGKILL)
