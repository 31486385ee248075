"""Rules for source ids."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from syncd.records.fields import SessionRow
from syncd.records.ids import SessionId, SourceId
from syncd.rules.sources import alike, difference, source_state
from tests.helpers.rows import session_row

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def row(name: str = "n") -> SessionRow:
    return session_row(name=name)


@pytest.mark.parametrize(
    ("carriers", "albert", "state", "session_id"),
    [
        ([("A", False)], None, "linked", "A"),
        ([("A", False)], "A", "linked", "A"),
        ([("A", True)], None, "linked", "A"),
        ([("A", True), ("B", False)], None, "linked", "B"),
        ([("A", False), ("B", False)], None, "conflict", None),
        ([("A", True), ("B", True)], None, "conflict", None),
        ([("A", False), ("B", False)], "A", "conflict", None),
        ([("A", False)], "B", "conflict", None),
    ],
)
def test_a_source_id_is_linked_to_the_one_session_that_carries_it(
    carriers: list[tuple[SessionId, bool]], albert: SessionId | None, state: str, session_id: str | None
) -> None:
    source = source_state(carriers, albert)
    assert source is not None
    assert (source.state, source.session_id) == (state, session_id)
    if state == "conflict":
        named = {carrier for carrier, missing in carriers if not missing} or {carrier for carrier, _ in carriers}
        assert all(each in str(source.note) for each in named | ({albert} if albert else set()))


def test_mirror_does_not_decide_about_a_source_id_that_no_session_carries() -> None:
    assert source_state([]) is None


def test_the_difference_of_an_adopted_session_is_named() -> None:
    assert difference(row("n"), {"name": "n", "parent_id": None}) is None
    text = difference(row("n"), {"source_session_id": "S", "name": "other", "parent_id": "FOL1"})
    assert text == "source id is 's' and not 'S', name is 'n' and not 'other', folder is None and not 'FOL1'"


def test_columns_that_are_not_wanted_are_not_compared() -> None:
    assert difference(row("n"), {"parent_id": None}) is None


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        ("CRM-Äpfel-77", "crm-äpfel-77", True),
        (" r-1", "r-1", True),
        ("A\u0308pfel", "Äpfel", True),
        ("STRASSE", "straße", True),
        ("r-1", "r-2", False),
        ("r 1", "r1", False),
    ],
)
def test_source_ids_are_alike_when_they_differ_only_in_form(first: SourceId, other: SourceId, expected: bool) -> None:
    assert alike(first, other) is expected
