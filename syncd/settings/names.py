"""Names that are not settings: which of them are errors, and which setting was probably meant."""

from __future__ import annotations

import difflib
import re

_PREFIXES = ("SYNCD_", "ALBERT_")
_SIMILAR = 0.8
"""Share of equal letters from which an `ALBERT_` name counts as a misspelled setting: `ALBERT_BASEURL` does and
`ALBERT_TENANT` does not."""
_SUGGESTED = 0.65
"""The same for a suggestion, which costs nothing when it is wrong."""
_FILLER = frozenset({"API", "ACCESS", "AUTH", "BEARER", "BASE", "CLIENT"})
"""Words that people add or leave out: `ALBERT_API_TOKEN`, `ALBERT_URL`, `ALBERT_SECRET`."""
_ENDING = re.compile("_(FILE|PATH|VALUE)$")
"""Endings that people add to settings that do not have them: `ALBERT_BASE_URL_FILE`, `ALBERT_TOKEN_PATH`."""
_SECRET = (
    "TOKEN", "BEARER", "JWT", "SECRET", "PASS", "PWD", "KEY", "CRED", "AUTH", "PROXY", "URL", "URI", "DSN", "WEBHOOK",
    "COOKIE",
)  # fmt: skip


def is_ours(name: str) -> bool:
    """Return whether a name begins like a setting, in capitals or not."""
    return name.upper().startswith(_PREFIXES)


def is_unknown(name: str, known: set[str]) -> bool:
    """Return whether a name that is not a setting is an error.

    Each name that begins with `SYNCD_` is one. Other programs may use names that begin with `ALBERT_`, so only one that
    resembles a setting is an error. The same holds for names in small letters.
    """
    if name in known:
        return False
    return name.startswith("SYNCD_") or _nearest(name, known, _SIMILAR) is not None


def suggestion(name: str, known: set[str]) -> str | None:
    """Return the setting that a misspelled or shortened name probably stands for."""
    prefix, _, rest = name.upper().partition("_")
    longer = [other for other in known if other.startswith(f"{prefix}_") and other.endswith(f"_{rest}")]
    return _nearest(name, known, _SUGGESTED) or (longer[0] if len(longer) == 1 else None)


def may_hold_a_secret(name: str) -> bool:
    """Return whether the value of an unknown name must stay out of messages."""
    return any(word in name.upper() for word in _SECRET)


def _nearest(name: str, known: set[str], cutoff: float) -> str | None:
    prefix, _, rest = name.upper().partition("_")
    candidates = {other.partition("_")[2]: other for other in sorted(known) if other.startswith(f"{prefix}_")}
    forms = (rest, _ENDING.sub("", rest))
    for form in forms:
        for other, full in candidates.items():
            if _without_fillers(form) == _without_fillers(other):
                return full
    squeezed = {other.replace("_", ""): full for other, full in candidates.items()}
    for form in forms:
        if close := difflib.get_close_matches(form.replace("_", ""), list(squeezed), 1, cutoff):
            return squeezed[close[0]]
    return _only_beginning(rest, candidates)


def _only_beginning(rest: str, candidates: dict[str, str]) -> str | None:
    """Return the only setting whose first words these are: `ALBERT_BASE`."""
    longer = [full for other, full in candidates.items() if other.startswith(f"{rest}_")]
    return longer[0] if len(longer) == 1 else None


def _without_fillers(rest: str) -> list[str]:
    name_words = rest.split("_")
    return [word for word in name_words if word not in _FILLER] or name_words
