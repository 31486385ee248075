"""The URL of the database: a password that is not percent-encoded is a problem that does not print it."""

from __future__ import annotations

from urllib.parse import quote

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from syncd.errors import SettingsError
from syncd.settings import load
from tests.settings.helpers import problems


@pytest.mark.parametrize(
    ("password", "url"),
    [
        ("pa55@word", "postgresql+asyncpg://syncd:pa55@word@db.example.com/syncd"),
        ("pa55/word", "postgresql://syncd:pa55/word@db.example.com/syncd"),
        ("pa55?word", "postgresql://syncd:pa55?word@db.example.com/syncd"),
        ("pa55#word", "postgresql://syncd:pa55#word@db.example.com/syncd"),
        ("1234/word", "postgresql://syncd:1234/word@db.example.com/syncd"),
        ("1234?word", "postgresql://syncd:1234?word@db.example.com/syncd"),
        ("1234/word?x=y", "postgresql://syncd:1234/word?x=y@db.example.com/syncd"),
        ("1234/word?ssl=y", "postgresql://syncd:1234/word?ssl=y@db.example.com/syncd"),
        ("pa55 word", "postgresql://syncd:pa55 word@db.example.com/syncd"),
        ("pa55[word", "postgresql://syncd:pa55[word@db.example.com/syncd"),
        ("@@//word", "postgresql://syncd:@@//word@db.example.com/syncd"),
        ("p%zzword", "postgresql://syncd:p%zzword@db.example.com/syncd"),
    ],
)
def test_password_that_is_not_encoded_is_a_problem_that_does_not_print_it(password: str, url: str) -> None:
    (problem,) = problems({"SYNCD_DATABASE_URL": url})
    assert problem.startswith("SYNCD_DATABASE_URL (environment): has a special character in the user name or password")
    assert "@ is %40" in problem
    assert "word" not in problem.replace("password", "")
    assert "db.example.com/syncd" not in problem.partition("example:")[0]
    assert sa.make_url(_loaded(url.replace(password, quote(password, safe="")))).password == password


@given(st.text(st.sampled_from("aB1@/?#:%[]&= ."), min_size=1, max_size=12))
def test_no_part_of_a_password_becomes_the_host(password: str) -> None:
    try:
        url = sa.make_url(_loaded(f"postgresql://syncd:{password}@db.example.com/syncd"))
    except SettingsError:
        return
    assert (url.host, url.database, url.query) == ("db.example.com", "syncd", {})


@pytest.mark.parametrize(
    "url",
    ["postgresql:///d?host=/run/a@b", "postgresql://h:5432/d?passfile=/home/a@b/.pgpass", "postgresql://u:p%40@h/d"],
)
def test_at_sign_in_an_option_is_accepted(url: str) -> None:
    assert _loaded(url)


def _loaded(url: str) -> str:
    return load({"SYNCD_DATABASE_URL": url}).settings.syncd_database_url.get_secret_value()
