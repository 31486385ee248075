"""The bytes of each item of a page with defects: exact, wherever else in the page the same bytes are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.records.fields import SESSIONS
from syncd.records.parse import read_page
from syncd.records.splitting import split

ITEM = b'{"id": "SES1", "name": "n", "sourceSessionId": "s", "z": NaN}'


@pytest.mark.parametrize(
    "before",
    [
        ITEM.replace(b"NaN", b"0.0"),
        b"[" + ITEM + b"]",
        b'{"Items": [' + ITEM.replace(b"NaN", b"0.0") + b"]}",
        b'"Items\\": ["',
    ],
    ids=["item", "array", "listing", "text"],
)
def test_item_has_its_own_bytes_although_a_member_before_the_items_looks_like_it(before: bytes) -> None:
    page = split(b'{"before": %s, "Items" : [ {"id": 1} ,\n %s ] , "lastKey": "k"}' % (before, ITEM))
    assert page is not None
    assert page.defects == {1: ITEM}
    assert page.next_key == "k"


@pytest.mark.parametrize(
    "body",
    [b'{"a": 1, "a": 22, "Items": [%s]}' % ITEM, b'{"\xff": 1, "Items": [%s]}' % ITEM],
    ids=["member twice", "name that is not UTF-8"],
)
def test_page_whose_items_cannot_be_located_is_read_as_a_whole(body: bytes) -> None:
    assert split(body) is None
    page = read_page(body, SESSIONS)
    assert len(page.rows) + len(page.unreadable) == 1


@pytest.mark.parametrize("key", ["eyJNaN9", "aInfinity", "0.0"])
def test_page_key_is_never_masked(key: str) -> None:
    body = b'{"Items": [%s], "lastKey": "%s"}' % (ITEM, key.encode())
    assert read_page(body, SESSIONS).next_key == key


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(
    before=st.dictionaries(st.text(max_size=3), json_values, max_size=3),
    items=st.lists(st.dictionaries(st.text(max_size=3), json_values, max_size=3), max_size=4),
    spaces=st.sampled_from([None, 1]),
)
def test_defects_are_parts_of_the_page_in_the_order_of_its_items(
    before: dict[str, Any], items: list[dict[str, Any]], spaces: int | None
) -> None:
    body = json.dumps(before | {"Items": items}, indent=spaces).encode()
    page = split(body)
    assert page is not None
    for place, item in enumerate(items):
        assert repr(json.loads(page.original(place))) == repr(item)
