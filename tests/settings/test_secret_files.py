"""Secrets in files: `NAME_FILE` names the file that holds the value of `NAME`."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.settings import load, read_secret
from tests.settings.helpers import SECRET, env_file, pipe, problems


def test_secret_is_read_from_the_file_that_name_file_names(tmp_path: Path) -> None:
    secret = env_file(tmp_path, f"{SECRET}\n", "token")
    url = env_file(tmp_path, "sqlite:///elsewhere.db\n", "url")
    loaded = load({"ALBERT_TOKEN_FILE": str(secret), "SYNCD_DATABASE_URL_FILE": str(url)}, credentials=True)
    assert loaded.settings.albert_token is not None
    assert loaded.settings.albert_token.get_secret_value() == SECRET
    assert loaded.settings.syncd_database_url.get_secret_value() == "sqlite+aiosqlite:///elsewhere.db"
    assert loaded.origins["albert_token"] == f"environment: ALBERT_TOKEN_FILE={secret}"
    assert SECRET not in repr(loaded)


def test_secret_file_that_is_missing_or_empty_or_not_text_is_a_problem(tmp_path: Path) -> None:
    empty = env_file(tmp_path, " \r\n", "empty")
    raw = tmp_path / "raw"
    raw.write_bytes(b"\xff\xfea\0")
    environment = {
        "ALBERT_TOKEN_FILE": str(tmp_path / "none"),
        "ALBERT_CLIENT_ID_FILE": str(empty),
        "ALBERT_CLIENT_SECRET_FILE": str(raw),
        "SYNCD_DATABASE_URL_FILE": "a\0b",
        "SYNCD_PROXY_FILE": "relative",
    }
    hidden = "environment; hidden, it may be the secret itself"
    utf_16 = "the file cannot be read: it is UTF-16 text; save it as UTF-8"
    assert problems(environment, credentials=True) == [
        f"ALBERT_TOKEN_FILE='{tmp_path / 'none'}' (environment): the file cannot be read: No such file or directory",
        f"ALBERT_CLIENT_ID_FILE='{empty}' (environment): the file is empty",
        f"ALBERT_CLIENT_SECRET_FILE='{raw}' (environment): {utf_16}",
        f"SYNCD_DATABASE_URL_FILE ({hidden}): the file cannot be read: it is not the name of a file",
        f"SYNCD_PROXY_FILE ({hidden}): the file cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfsecret\r\n", b"\n secret\t\n", b"secret"])
def test_white_space_and_marks_around_the_secret_in_a_file_are_removed(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    token = load({"ALBERT_TOKEN_FILE": str(file)}).settings.albert_token
    assert token is not None
    assert token.get_secret_value() == read_secret(file) == "secret"


@pytest.mark.parametrize("content", ["hun\nter2", "hun\u200bter2", '"hunter2"'])
def test_secret_in_a_file_that_cannot_be_one_is_a_problem_that_does_not_repeat_it(tmp_path: Path, content: str) -> None:
    (problem,) = problems({"ALBERT_TOKEN_FILE": str(env_file(tmp_path, content, "token"))})
    assert "the content of the file" in problem
    assert "ter2" not in problem


def test_pipe_is_read_once_and_keeps_its_content(tmp_path: Path) -> None:
    pipes: dict[Path, str] = {}
    with pipe(f"{SECRET}\n") as token, pipe("SYNCD_PASS_INTERVAL=7") as settings:
        for _ in range(2):
            loaded = load({"ALBERT_TOKEN_FILE": str(token)}, [settings], pipes=pipes)
            assert loaded.settings.albert_token is not None
            assert loaded.settings.albert_token.get_secret_value() == SECRET
            assert loaded.settings.syncd_pass_interval == 7
            assert loaded.settings.file_of("albert_token") is None
    file = env_file(tmp_path, SECRET, "token")
    assert load({"ALBERT_TOKEN_FILE": str(file)}, pipes=pipes).settings.file_of("albert_token") == file


def test_name_and_name_file_in_one_place_contradict_each_other(tmp_path: Path) -> None:
    secret = env_file(tmp_path, SECRET, "token")
    assert problems({"ALBERT_TOKEN": "a", "ALBERT_TOKEN_FILE": str(secret)}) == [
        "ALBERT_TOKEN and ALBERT_TOKEN_FILE are both set (environment); remove one of them"
    ]
    both = env_file(tmp_path, "ALBERT_TOKEN=a\nALBERT_TOKEN_FILE=b\n")
    assert problems({}, both) == [
        f"ALBERT_TOKEN and ALBERT_TOKEN_FILE are both set ({both}:1 and {both}:2); remove one of them"
    ]


def test_name_file_of_the_environment_wins_over_a_name_in_a_file_and_the_other_way_round(tmp_path: Path) -> None:
    secret = env_file(tmp_path, "from-secret-file", "token")
    plain = env_file(tmp_path, "ALBERT_TOKEN=from-env-file\n", "plain.env")
    named = env_file(tmp_path, f"ALBERT_TOKEN_FILE={secret}\n", "named.env")
    for environment, file, token in (
        ({"ALBERT_TOKEN_FILE": str(secret)}, plain, "from-secret-file"),
        ({"ALBERT_TOKEN": "from-environment"}, named, "from-environment"),
    ):
        albert_token = load(environment, [file]).settings.albert_token
        assert albert_token is not None
        assert albert_token.get_secret_value() == token
