"""The tenant id in claims and token responses: found under each known name, and never guessed."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.claims import tenant_of, tenant_of_token


def web_token(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.signature"


@pytest.mark.parametrize(
    "name",
    ["tenant_id", "tenantId", "TenantID", "tenant-id", "tenant", "tid", "custom:tenant_id", "https://a.example/tenant"],
)
def test_tenant_is_found_under_each_known_name(name: str) -> None:
    assert tenant_of({"sub": "USR1", name: "TEN7"}) == "TEN7"
    assert tenant_of_token(web_token({"sub": "USR1", name: "TEN7"})) == "TEN7"


def test_most_specific_name_wins() -> None:
    assert tenant_of({"tid": "directory", "tenant": "name", "tenantId": "TEN7"}) == "TEN7"
    assert tenant_of({"tid": "directory", "tenant": {"id": "TEN7", "name": "ACME"}}) == "TEN7"


def test_first_of_two_spellings_wins() -> None:
    assert tenant_of({"tenant_id": "TEN7", "custom:tenant_id": "TEN8"}) == "TEN7"


@pytest.mark.parametrize("value", [None, "", "  ", True, 1.5, [], {}, "a\nb", "x" * 201])
def test_value_that_is_not_an_id_is_ignored(value: object) -> None:
    assert tenant_of({"tenantId": value, "tid": "fallback"}) == "fallback"


def test_number_is_an_id() -> None:
    assert tenant_of({"tenantId": 42}) == "42"


@pytest.mark.parametrize("claims", [None, [], "tenant", 7, {}, {"sub": "USR1", "tenants": ["TEN1"]}])
def test_other_json_names_no_tenant(claims: object) -> None:
    assert tenant_of(claims) is None
    assert tenant_of_token(web_token(claims)) is None


@pytest.mark.parametrize(
    "token", ["", "opaque", "a.b", "a.b.c", "a.!!!.c", "...", "e30.W10.x", f"e30.{'W' * 70_000}.x"]
)
def test_opaque_token_names_no_tenant(token: str) -> None:
    assert tenant_of_token(token) is None


def test_token_with_surrounding_white_space_is_read() -> None:
    assert tenant_of_token(f"  {web_token({'tenantId': 'TEN7'})}\n") == "TEN7"


def test_claims_nested_deeper_than_the_parser_allows_name_no_tenant() -> None:
    payload = base64.urlsafe_b64encode(b"[" * 30_000).decode()
    assert tenant_of_token(f"e30.{payload}.x") is None


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=40))
def test_no_text_raises(token: str) -> None:
    tenant_of_token(f"e30.{token}.x")
