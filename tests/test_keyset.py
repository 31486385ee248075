"""A set of integers in one bit each does what a set does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from syncd.keyset import KeySet, pack, unpack

keys = st.lists(st.integers(0, 100_000), unique=True) | st.builds(
    lambda first, count: list(range(first, first + count)), st.integers(0, 5_000), st.integers(0, 300)
)


@given(st.lists(keys), keys)
def test_it_holds_what_was_put_into_it_and_nothing_else(rounds: list[list[int]], others: list[int]) -> None:
    found, wanted = KeySet(), set[int]()
    for added in rounds:
        assert found.isdisjoint(added) == wanted.isdisjoint(added)
        assert found.update(added) == len(set(added) - wanted)
        wanted.update(added)
    assert len(found) == len(wanted)
    assert all(key in found for key in wanted)
    assert all((key in found) == (key in wanted) for key in others)


@given(keys, keys)
def test_a_copy_goes_its_own_way(first: list[int], later: list[int]) -> None:
    kept = KeySet()
    kept.update(first)
    copied = kept.copy()
    copied.update(later)
    assert len(kept) == len(first)
    assert len(copied) == len({*first, *later})


@given(st.lists(st.integers(-(2**61), 2**61)))  # a step from key to key fits as well
def test_packed_keys_come_back_as_they_were(numbers: list[int]) -> None:
    assert list(unpack(pack(numbers))) == numbers


def test_keys_in_the_order_of_the_mirror_take_next_to_nothing() -> None:
    assert len(pack(range(1, 1001))) < 100


def test_a_million_sessions_cost_an_eighth_of_a_byte_each() -> None:
    found = KeySet()
    found.update(range(1, 1_000_001))
    assert len(found) == 1_000_000
    assert len(found._bits) < 127_000
