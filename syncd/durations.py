"""Durations as people write them: `90`, `90s`, `5m`, `2h`, `1d`. Settings and command-line options call it."""

from __future__ import annotations

import re

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?P<number>-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*(?P<unit>[smhd]?)", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration.

    Parameters
    ----------
    text : str
        A decimal number, with a fraction or without. It can end with one unit: `s` (seconds, the default), `m`
        (minutes), `h` (hours) or `d` (days of 24 hours). A negative number is read, so that the caller can say that it
        is out of range.

    Raises
    ------
    ValueError
        The text has another form. The message does not repeat it.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a duration; write seconds, or a number with the unit s, m, h or d")
    return float(match["number"]) * _SECONDS[match["unit"]]
