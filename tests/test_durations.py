"""Durations: a number of seconds, or a number with one unit."""

from __future__ import annotations

import pytest

from syncd.durations import parse_duration
from syncd.settings import load


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400), ("90d", 7_776_000), ("0.5", 0.5),
        ("1.5h", 5400), (".5m", 30), ("0", 0), ("0s", 0), (" 5 m ", 300), ("-1", -1), ("5.", 5),
    ],
)  # fmt: skip
def test_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "", "soon", "5x", "5M", "5min", "1h30m", "m", "1e3", "inf", "nan", "0x10", "1_000", "1,5", "5 5", "--1",
        "\u0665", "1w", "5ms", "PT5M",
    ],
)  # fmt: skip
def test_other_text_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; write seconds, or a number with the unit s, m, h or d$"):
        parse_duration(text)


def test_every_setting_in_seconds_accepts_units() -> None:
    names = [
        "PASS_INTERVAL", "RECONCILE_INTERVAL", "RETRY_BASE", "RETRY_MAX", "UNKNOWN_SETTLE", "LEASE", "REQUEST_TIMEOUT",
        "MAX_PASS_SECONDS", "DELETE_GRACE", "SHUTDOWN_GRACE",
    ]  # fmt: skip
    settings = load({f"SYNCD_{name}": "1.5m" for name in names}).settings
    assert [getattr(settings, f"syncd_{name.lower()}") for name in names] == [90] * len(names)
