"""Ids that look the same: which ones are reported, and what they differ in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.rules.lookalikes import NamedId, differences, folded, lookalikes

WHITE, INVISIBLE, CASE, FORM = "white space", "invisible characters", "case", "the Unicode form of a letter"


def ids(*values: str, start: int = 2) -> list[NamedId]:
    return [NamedId(f"line {number}", "source_session_id", value) for number, value in enumerate(values, start)]


@pytest.mark.parametrize(
    ("first", "other", "parts"),
    [
        ("r-1", "r-1 ", (WHITE,)), ("r 1", "r1", (WHITE,)), ("r 1", "r\u00a01", (WHITE,)), ("r-1", "\tr-1", (WHITE,)),
        ("r-2", "r\u200b-2", (INVISIBLE,)), ("r-2", "\ufeffr-2", (INVISIBLE,)), ("r-2", "r\u00ad-2", (INVISIBLE,)),
        ("R-3", "r-3", (CASE,)), ("Straße", "STRASSE", (CASE,)), ("é", "e\u0301", (FORM,)), ("Ａ", "A", (FORM,)),
        ("R-4 ", "r\u200b-4", (WHITE, INVISIBLE, CASE)), ("É ", "e\u0301", (WHITE, CASE, FORM)), ("ſ", "s", (FORM,)),
    ],
)  # fmt: skip
def test_ids_that_look_the_same_are_reported_with_the_difference(
    first: str, other: str, parts: tuple[str, ...]
) -> None:
    (lookalike,) = lookalikes(ids(first, other), [])
    assert (lookalike.id.value, lookalike.other.value, lookalike.differs_in) == (other, first, parts)
    assert differences(other, first) == parts


@pytest.mark.parametrize(
    ("first", "other"), [("r-1", "r-2"), ("r-1", "r_1"), ("r-1", "r1"), ("o", "0"), ("a", "\u0430"), ("ab", "ba")]
)
def test_other_ids_are_not_reported(first: str, other: str) -> None:
    assert list(lookalikes(ids(first, other), ids(first, other))) == []


def test_same_id_twice_is_not_a_lookalike() -> None:
    assert list(lookalikes(ids("r-1", "r-1"), ids("r-1"))) == []


def test_each_pair_is_reported_once_with_the_first_of_the_file() -> None:
    reported = list(lookalikes(ids("r-1", "R-1", "r-1 ", "R-1", "r-1"), []))
    assert [(lookalike.id.place, lookalike.other.place) for lookalike in reported] == [
        ("line 3", "line 2"),
        ("line 4", "line 2"),
    ]


def test_known_id_is_reported_unless_the_file_has_it_exactly() -> None:
    known = [NamedId("mirror", "source_session_id", value) for value in ("r-1", "r-2", "R-2", "other")]
    reported = list(lookalikes(ids("r-1 ", "r-2", "new"), known))
    assert [(lookalike.id.value, lookalike.other.place, lookalike.other.value) for lookalike in reported] == [
        ("r-1 ", "mirror", "r-1")
    ]


def test_ids_of_different_columns_are_not_compared() -> None:
    first, other = NamedId("line 2", "source_session_id", "SES1"), NamedId("line 3", "id", "ses1")
    assert list(lookalikes([first, other], [])) == []


def test_report_shows_invisible_characters() -> None:
    (lookalike,) = lookalikes(ids("r-2", "r\u200b-2"), [])
    assert str(lookalike) == (
        "line 3: source_session_id 'r\\u200b-2' differs from 'r-2' (line 2) only in invisible characters"
    )


@given(st.text(min_size=1), st.text(min_size=1))
def test_reported_ids_always_have_a_difference(first: str, other: str) -> None:
    for lookalike in lookalikes(ids(first, other), []):
        assert first != other
        assert lookalike.differs_in


@given(st.text(), st.sampled_from(" \t\u00a0\u200b\ufeff\u00ad"), st.integers(0, 20))
def test_added_white_space_or_invisible_character_does_not_change_the_folded_id(
    text: str, added: str, place: int
) -> None:
    assert folded(text[:place] + added + text[place:]) == folded(text)
