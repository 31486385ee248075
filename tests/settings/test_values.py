"""The text of a value: surrounding white space is removed; invisible characters and quotation marks are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.errors import SettingsError
from syncd.settings import load
from syncd.settings.values import stripped
from tests.settings.helpers import SECRET, env_file, problems

HERE = "at character 3"


@pytest.mark.parametrize("around", ["\r", "\n", "\r\n", "\ufeff", " ", "\t", "\ufeff \r\n", "\u00a0"])
def test_white_space_line_ends_and_byte_order_marks_around_a_value_are_removed(around: str) -> None:
    loaded = load({
        "ALBERT_TOKEN": f"{around}{SECRET}{around}", "SYNCD_LEASE": f"{around}7{around}",
        "SYNCD_LOG_FORMAT": f"json{around}", "SYNCD_DATABASE_URL": f"sqlite:///a b.db{around}",
    })  # fmt: skip
    settings = loaded.settings
    assert settings.albert_token is not None
    assert settings.albert_token.get_secret_value() == SECRET
    assert (settings.syncd_lease, settings.syncd_log_format) == (7, "json")
    assert settings.syncd_database_url.get_secret_value() == "sqlite+aiosqlite:///a b.db"


def test_value_of_white_space_alone_counts_as_not_set() -> None:
    assert load({"SYNCD_LEASE": " \r\n", "ALBERT_TOKEN": "\ufeff"}).settings.albert_token is None
    assert stripped("\ufeff \ufeff") == ""


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\u200b", "ZERO WIDTH SPACE (U+200B)"), ("\u00a0", "NO-BREAK SPACE (U+00A0)"), ("\u00ad", "SOFT HYPHEN"),
        ("\ufeff", "ZERO WIDTH NO-BREAK SPACE"), ("\u2060", "WORD JOINER"), ("\u202e", "RIGHT-TO-LEFT OVERRIDE"),
        ("\t", "TAB"), ("\n", "LINE FEED"), ("\r", "CARRIAGE RETURN"), ("\u2028", "LINE SEPARATOR"),
        ("\u3164", "HANGUL FILLER"), ("\x02", "CONTROL CHARACTER (U+0002)"),
    ],
)  # fmt: skip
def test_invisible_character_inside_a_value_is_a_problem_that_names_it(character: str, name: str) -> None:
    environment = {"ALBERT_TOKEN": f"to{character}ken", "SYNCD_LEASE": f"60{character}0"}
    secret, plain = problems(environment)
    assert secret.startswith("ALBERT_TOKEN (environment): contains invisible characters: ")
    assert plain.startswith("SYNCD_LEASE='60\\")
    for problem in (secret, plain):
        assert name in problem
        assert HERE in problem
        assert character not in problem


def test_many_invisible_characters_are_counted_and_not_all_named() -> None:
    (problem,) = problems({"ALBERT_TOKEN": "a" + "\u200b" * 50 + "b"})
    assert problem.count("ZERO WIDTH SPACE") == 3
    assert "and 47 more" in problem


def test_visible_characters_of_any_language_are_accepted() -> None:
    url = "sqlite:///Größe 粘度 🧪.db"
    assert load({"SYNCD_DATABASE_URL": url}).settings.syncd_database_url.get_secret_value().endswith("粘度 🧪.db")


@pytest.mark.parametrize("value", [f'"{SECRET}"', f"'{SECRET}'", f"\u201c{SECRET}\u201d", f"\u201e{SECRET}\u201c"])
@pytest.mark.parametrize("name", ["ALBERT_TOKEN", "ALBERT_BASE_URL", "SYNCD_DATABASE_URL", "SYNCD_LEASE"])
def test_quotation_marks_around_a_value_are_a_problem_with_a_hint(name: str, value: str) -> None:
    (problem,) = problems({name: value})
    assert problem.startswith(name)
    assert "has quotation marks around it; remove them" in problem
    assert "Docker" in problem


@pytest.mark.parametrize("value", [f'"{SECRET}', f"{SECRET}'", f"Bearer {SECRET}", f"bearer\t{SECRET}"])
def test_token_with_half_a_quotation_or_the_word_bearer_is_a_problem(value: str) -> None:
    (problem,) = problems({"ALBERT_TOKEN": value})
    assert problem.startswith("ALBERT_TOKEN (environment): ")
    assert SECRET not in problem


def test_each_setting_has_one_problem() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"SYNCD_LEASE": '"0\u200b"', "SYNCD_STATUS_HOST": "'a b'", "ALBERT_TOKEN": "'a b'"})
    assert len(caught.value.problems) == 3


def test_quotation_marks_of_an_environment_file_belong_to_the_file(tmp_path: Path) -> None:
    file = env_file(tmp_path, "SYNCD_LEASE=\"7\"\r\nSYNCD_RETRY_MAX='8'\r\n")
    settings = load({}, [file]).settings
    assert (settings.syncd_lease, settings.syncd_retry_max) == (7, 8)
