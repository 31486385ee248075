"""Two identities are the same tenant unless a known part differs."""

from __future__ import annotations

import pytest

from syncd.rules.identity import Identity, combined, matches, mismatch_message, same_tenant

PINNED = Identity("https://a.example", "TEN1")


@pytest.mark.parametrize(
    ("named", "same"),
    [
        (PINNED, True),
        (Identity("https://a.example", "ten1"), True),
        (Identity("https://a.example"), True),
        (Identity(None, "TEN1"), True),
        (Identity(), True),
        (Identity("https://a.example", "TEN2"), False),
        (Identity("https://b.example", "TEN1"), False),
        (Identity("https://b.example"), False),
        (Identity(None, "TEN2"), False),
    ],
)
def test_only_a_known_part_can_differ(named: Identity, same: bool) -> None:
    assert same_tenant(PINNED, named) is same
    assert same_tenant(named, PINNED) is same


@pytest.mark.parametrize(
    ("pinned", "named", "expected"),
    [
        (PINNED, PINNED, True),
        (Identity("https://a.example"), PINNED, True),
        (Identity("https://a.example"), Identity("https://a.example"), True),
        (PINNED, Identity("https://a.example"), None),
        (PINNED, Identity(None, "TEN1"), None),
        (PINNED, Identity("https://b.example"), False),
    ],
)
def test_settings_that_leave_out_a_pinned_part_do_not_tell_whether_they_match(
    pinned: Identity, named: Identity, expected: bool | None
) -> None:
    assert matches(pinned, named) is expected


def test_combined_identity_keeps_what_is_pinned() -> None:
    assert combined(Identity("https://a.example"), Identity("https://b.example", "TEN2")) == Identity(
        "https://a.example", "TEN2"
    )


def test_message_names_both_tenants_and_the_command() -> None:
    text = mismatch_message(PINNED, Identity("https://b.example"))
    for part in ("https://a.example", "TEN1", "https://b.example", "syncd tenant accept"):
        assert part in text
