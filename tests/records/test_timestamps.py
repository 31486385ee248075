"""Times are stored in one form that sorts, whether one is read or a whole column."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.records.timestamps import read_time, read_times

TIMES = [
    ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z"),
    ("2026-01-31T12:00:00.123Z", "2026-01-31T12:00:00.123000Z"),
    ("2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00.123456Z"),
    ("2026-01-31T12:00:00.1Z", "2026-01-31T12:00:00.100000Z"),
    ("2026-01-31T12:00:00.1234567Z", "2026-01-31T12:00:00.123456Z"),
    ("2026-01-31T12:00:00,123Z", "2026-01-31T12:00:00.123000Z"),
    ("2026-01-31t12:00:00z", "2026-01-31T12:00:00.000000Z"),
    ("2026-01-31 12:00:00Z", "2026-01-31T12:00:00.000000Z"),
    ("2026-01-31T12:00:00+05:00", "2026-01-31T07:00:00.000000Z"),
    ("2026-01-31T12:00:00.500-08:00", "2026-01-31T20:00:00.500000Z"),
    ("2026-01-31T12:00:00", "2026-01-31T12:00:00.000000Z"),
    ("20260131T120000Z", "2026-01-31T12:00:00.000000Z"),
    ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
    ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
    ("", None),
    ("yesterday", None),
    ("2026-02-30T00:00:00Z", None),
    ("2026-01-31T25:00:00Z", None),
    ("0001-01-01T00:00:00+05:00", None),
    ("9999-12-31T23:59:59-05:00", None),
    ("٢٠٢٦-01-31T12:00:00Z", None),
    ("1767225600", None),
]
HOUR_24 = "2026-01-31T24:00:00Z"  # the next day at 0:00 for newer versions of Python, no time for older ones


@pytest.mark.parametrize(("text", "stored"), TIMES)
def test_time_is_stored_in_the_one_form_that_sorts(text: str, stored: str | None) -> None:
    assert read_time(text) == stored or (text == "2026-01-31t12:00:00z" and read_time(text) is None)


@given(st.datetimes(timezones=st.timezones()), st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]))
def test_every_time_that_python_writes_is_read_as_that_moment(moment: Any, precision: str) -> None:
    stored = read_time(moment.isoformat(timespec=precision))
    if stored is not None:
        assert len(stored) == 27
        assert read_time(stored) == stored


utc = st.datetimes().flatmap(
    lambda moment: st.sampled_from(["seconds", "milliseconds", "microseconds"]).map(
        lambda precision: moment.isoformat(timespec=precision) + "Z"
    )
)
texts = st.one_of(
    st.none(), utc, st.sampled_from([text for text, _ in TIMES]), st.just(HOUR_24), st.text("0:-TZ.24", max_size=28)
)


@given(st.lists(texts, max_size=6) | st.lists(utc, max_size=6) | st.lists(st.none() | utc, max_size=6))
def test_column_of_times_is_read_like_its_times_one_by_one(column: list[str | None]) -> None:
    times, unreadable = read_times(column)
    wanted = [None if text is None else read_time(text) for text in column]
    assert list(times) == wanted
    assert unreadable == [place for place, text in enumerate(column) if text is not None and wanted[place] is None]


@pytest.mark.parametrize(
    "column",
    [
        ["2026-01-31T12:00:00.000Z2", "026-01-31T12:00:00.000Z"],  # right only when they are joined
        ["2026-01-31T12:00:00.000Z2026-01-31T12:00:00.000Z", ""],
        ["2026-01-31T12:60:00.000Z"],
        ["2026-01-31T12:00:60.000Z"],
        ["2026-02-29T12:00:00.000Z"],
    ],
)
def test_column_that_only_looks_like_times_is_unreadable(column: list[str]) -> None:
    assert read_times(column) == ([None] * len(column), list(range(len(column))))
