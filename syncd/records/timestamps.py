"""Times as Albert writes them, brought to the form in which the mirror stores them (`clock.utc_text`).

`records.items` reads one time, `records.plain_pages` a whole column of a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat

from syncd.clock import utc_text

_END = {20: ".000000Z", 24: "000Z", 27: "Z"}
"""The replacement of the "Z" of a UTC time in seconds, milliseconds or microseconds (by its length)."""
_SEPARATORS = ("--T::.", "--T::Z")
"""Every third character of such a time, from the fifth."""
_ZEROS = {20: "0000-00-00T00:00:00Z", 24: "0000-00-00T00:00:00.000Z", 27: "0000-00-00T00:00:00.000000Z"}
_TO_ZERO = str.maketrans("123456789", "0" * 9)
_TENS = frozenset("012345")


def read_time(text: str) -> str | None:
    """Bring an ISO 8601 time to the stored form.

    Returns
    -------
    str | None
        The time in UTC with six fraction digits and `Z`. A time without a zone is UTC. None for any other text.
    """
    try:
        moment = datetime.fromisoformat(text)
        if text[-1] == "Z" and text[4:20:3] in _SEPARATORS and len(text) in _END and text[11:13] != "24":
            return text.replace("Z", _END[len(text)])  # twice as fast as writing the moment again
        return utc_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def read_times(texts: Sequence[str | None]) -> tuple[Sequence[str | None], list[int]]:
    """Bring a column of times to the stored form.

    Returns
    -------
    tuple[Sequence[str | None], list[int]]
        The times, None for an absent one; and the places of those that cannot be read.
    """
    given = [text for text in texts if text is not None]
    if given and _all_utc(given, length := len(given[0])):
        end = _END[length]
        if len(given) == len(texts):  # a loop in C: a third less than in Python
            return list(map(str.replace, given, repeat("Z"), repeat(end))), []
        return [text and text.replace("Z", end) for text in texts], []
    known: dict[str | None, str | None] = {None: None}
    for length in {*map(len, given)}:
        known.update(_read_length([text for text in given if len(text) == length], length))
    unreadable = [place for place, text in enumerate(texts) if text is not known[text] is None]
    return [known[text] for text in texts], unreadable


def _read_length(texts: Sequence[str], length: int) -> dict[str, str | None]:
    """Read texts of one length."""
    if _all_utc(texts, length):
        return {text: text.replace("Z", _END[length]) for text in texts}
    return {text: read_time(text) for text in texts}


def _all_utc(texts: Sequence[str], length: int) -> bool:
    """Whether all texts are UTC times of one length that lack nothing but fraction digits."""
    zeros = _ZEROS.get(length)
    joined = "".join(texts)
    return (
        zeros is not None
        and len(joined) == length * len(texts)
        and joined.isascii()
        and joined.translate(_TO_ZERO) == zeros * len(texts)
        and _TENS.issuperset(joined[14::length])
        and _TENS.issuperset(joined[17::length])
        and all(map(_is_hour, {text[:13] for text in texts}))
    )


@lru_cache(maxsize=4096)
def _is_hour(text: str) -> bool:
    """Whether text such as 2026-01-31T23 names an hour of the calendar. Hour 24 is left to `read_time`."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return not text.endswith("24")
