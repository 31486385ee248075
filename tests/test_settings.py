"""Settings: every problem at once, no secret in any of them, and the environment over later over earlier files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncd.albert.urls import checked_base_url
from syncd.errors import SettingsError
from syncd.settings import Settings, load

SECRET = "canary-secret-value"


def problems(environment: dict[str, str], *files: Path, credentials: bool = False) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environment, files, credentials=credentials)
    return caught.value.problems


def env_file(folder: Path, text: str, name: str = "syncd.env") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_defaults_are_those_of_the_interface() -> None:
    settings = load({}).settings
    assert settings.albert_base_url == "https://app.albertinvent.com"
    assert settings.syncd_database_url.get_secret_value() == "sqlite+aiosqlite:///syncd.db"
    given: dict[str, Any] = {
        "auto_migrate": True, "pass_interval": 300, "reconcile_interval": 300, "operations_concurrency": 16,
        "operations_max_attempts": 8, "retry_base": 0.5, "retry_max": 300, "unknown_settle": 60, "lease": 60,
        "request_timeout": 30, "max_response_bytes": 67108864, "max_requests_per_second": None, "delete_grace": 120,
        "delete_confirmations": 2, "delete_max_count": 25, "delete_max_fraction": 0.05, "status_host": "127.0.0.1",
        "status_port": 8080, "shutdown_grace": 10, "log_level": "info", "log_format": "auto",
        "max_pass_pages": 1_000_000, "max_pass_seconds": 21600,
    }  # fmt: skip
    for name, value in given.items():
        assert getattr(settings, f"syncd_{name}") == value, name


def test_every_problem_is_listed_at_once() -> None:
    found = problems(
        {
            "ALBERT_BASE_URL": "http://example.com",
            "ALBERT_CLIENT_ID": "half-a-pair",
            "SYNCD_DATABASE_URL": "mysql://somewhere/db",
            "SYNCD_PASS_INTERVAL": "soon",
            "SYNCD_LEASE": "0",
            "SYNCD_DELETE_GRACE": "-1",
            "SYNCD_DELETE_MAX_FRACTION": "1.5",
            "SYNCD_STATUS_PORT": "65536",
            "SYNCD_OPERATIONS_CONCURRENCY": "0",
            "SYNCD_OPERATIONS_MAX_ATTEMPTS": "2.5",
            "SYNCD_AUTO_MIGRATE": "perhaps",
            "SYNCD_LOG_LEVEL": "loud",
            "SYNCD_LOG_FORMAT": "xml",
            "SYNCD_RETRY_MAX": "inf",
            "SYNCD_UNKNOWN_SETTLE": "nan",
            "SYNCD_TYPO": "1",
            "SYNCD_LEASE_FILE": "only secrets have files",
        },
        credentials=True,
    )
    named = {problem.replace(":", " ").split()[0] for problem in found}
    assert named == {
        "ALBERT_BASE_URL", "ALBERT_CLIENT_ID", "SYNCD_DATABASE_URL", "SYNCD_PASS_INTERVAL", "SYNCD_LEASE",
        "SYNCD_DELETE_GRACE", "SYNCD_DELETE_MAX_FRACTION", "SYNCD_STATUS_PORT", "SYNCD_OPERATIONS_CONCURRENCY",
        "SYNCD_OPERATIONS_MAX_ATTEMPTS", "SYNCD_AUTO_MIGRATE", "SYNCD_LOG_LEVEL", "SYNCD_LOG_FORMAT",
        "SYNCD_RETRY_MAX", "SYNCD_UNKNOWN_SETTLE", "SYNCD_TYPO", "SYNCD_LEASE_FILE",
    }  # fmt: skip


def test_missing_credentials_matter_to_commands_that_talk_to_albert_alone() -> None:
    load({})
    assert problems({}, credentials=True) == [
        "no credentials: set ALBERT_TOKEN, or ALBERT_CLIENT_ID and ALBERT_CLIENT_SECRET (or NAME_FILE of them)"
    ]
    assert load({"ALBERT_TOKEN": "t"}, credentials=True).settings.albert_token is not None
    pair = {"ALBERT_CLIENT_ID": "i", "ALBERT_CLIENT_SECRET": "s"}
    assert load(pair, credentials=True).settings.albert_client_secret is not None


@pytest.mark.parametrize(
    "environment",
    [
        {"ALBERT_TOKEN": f"{SECRET} with a space"},
        {"ALBERT_TOKEN": f"{SECRET}\nX-Header: 1"},
        {"ALBERT_CLIENT_ID": "i", "ALBERT_CLIENT_SECRET": f"{SECRET}\u00e9"},
        {"ALBERT_BASE_URL": f"https://user:{SECRET}@app.albertinvent.com"},
        {"ALBERT_BASE_URL": f"https://app.albertinvent.com/?token={SECRET}"},
        {"SYNCD_DATABASE_URL": f"mysql://user:{SECRET}@host/db"},
        {"SYNCD_DATABASE_URL": f"postgresql://user:{SECRET}@host:port/db"},
        {"SYNCD_PASS_INTERVAL": SECRET},
        {"SYNCD_LOG_LEVEL": SECRET},
    ],
)
def test_no_problem_repeats_what_was_given(environment: dict[str, str]) -> None:
    found = problems(environment)
    assert len(found) == 1
    assert SECRET not in found[0]


@pytest.mark.parametrize(
    "url",
    [
        "https://app.albertinvent.com", "https://app.albertinvent.com/", "https://host:8443/prefix", "https://[::1]:9",
        "http://localhost:8900", "http://127.0.0.1", "http://127.9.9.9:1", "http://[::1]:8900", "HTTPS://HOST",
    ],
)  # fmt: skip
def test_base_url_that_is_taken_is_one_that_the_client_takes(url: str) -> None:
    assert checked_base_url(load({"ALBERT_BASE_URL": url}).settings.albert_base_url)


@pytest.mark.parametrize(
    "url",
    [
        "app.albertinvent.com", "ftp://host", "https://", "https://host:99999", "https://host:port", "https://[::1",
        "https://host:0", "http://example.com", "http://localhost.example.com", "http://127.0.0.1.example.com",
        "http://2130706433", "http://0.0.0.0", "https://user@host", "https://@host", "https://host?", "https://host#",
        "https://ho st", "https://host\\path", "https://host\u0000", "http://127.0.0.1@example.com",
    ],
)  # fmt: skip
def test_base_url_that_a_secret_must_not_go_to_is_refused(url: str) -> None:
    assert len(problems({"ALBERT_BASE_URL": url})) == 1


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("sqlite+aiosqlite:////var/lib/x.db", "sqlite+aiosqlite:////var/lib/x.db"),
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u@h:5432/d", "postgresql+asyncpg://u@h:5432/d"),
        ("postgresql+asyncpg:///d?host=/run/postgresql", "postgresql+asyncpg:///d?host=/run/postgresql"),
        (
            "postgresql://h/d?ssl=verify-full&prepared_statement_cache_size=0",
            "postgresql+asyncpg://h/d?ssl=verify-full&prepared_statement_cache_size=0",
        ),
    ],
)
def test_database_url_may_leave_out_the_driver(given: str, taken: str) -> None:
    assert load({"SYNCD_DATABASE_URL": given}).settings.syncd_database_url.get_secret_value() == taken


@pytest.mark.parametrize(
    "url",
    [
        "x.db", "sqlite://x.db", "sqlite:///", "sqlite:///:memory:", "sqlite:///folder/", "sqlite:///x.db?mode=ro",
        "sqlite:///file:x.db", "postgresql://h", "postgresql://h:port/d", "postgresql+psycopg://h/d", "://", "sqlite",
        "postgresql://h/d?sslmode=require", "postgresql://h/d?ssl=yes", "postgresql://h/d?pool_size=5",
        "postgresql://h/d?prepared_statement_cache_size=none",
    ],
)  # fmt: skip
def test_database_url_that_cannot_be_opened_is_refused(url: str) -> None:
    assert len(problems({"SYNCD_DATABASE_URL": url})) == 1


def test_seconds_take_fractions_and_a_grace_may_be_nothing() -> None:
    settings = load({
        "SYNCD_PASS_INTERVAL": "0.25", "SYNCD_DELETE_GRACE": "0", "SYNCD_SHUTDOWN_GRACE": "0",
        "SYNCD_UNKNOWN_SETTLE": "0", "SYNCD_RETRY_BASE": "0", "SYNCD_MAX_REQUESTS_PER_SECOND": "0.5",
    }).settings  # fmt: skip
    assert (settings.syncd_pass_interval, settings.syncd_delete_grace) == (0.25, 0)


def test_empty_value_counts_as_not_set(tmp_path: Path) -> None:
    file = env_file(tmp_path, "SYNCD_LEASE=\nSYNCD_RETRY_BASE=2\nSYNCD_NO_SETTING=\n")
    loaded = load({"SYNCD_PASS_INTERVAL": "", "SYNCD_RETRY_BASE": "", "ALBERT_TOKEN": ""}, [file])
    assert (loaded.settings.syncd_lease, loaded.settings.syncd_retry_base) == (60, 2)
    assert loaded.settings.albert_token is None
    assert loaded.origins["syncd_lease"] == "default"


def test_later_file_wins_over_earlier_and_the_environment_over_both(tmp_path: Path) -> None:
    first = env_file(tmp_path, "SYNCD_LEASE=1\nSYNCD_RETRY_BASE=1\nSYNCD_RETRY_MAX=1\n", "first.env")
    second = env_file(
        tmp_path, "\ufeff# a comment\nexport SYNCD_RETRY_BASE='2'\nSYNCD_RETRY_MAX=2 # why\n", "second.env"
    )
    loaded = load({"SYNCD_RETRY_MAX": "3"}, [first, second])
    assert [getattr(loaded.settings, f"syncd_{name}") for name in ("lease", "retry_base", "retry_max")] == [1, 2, 3]
    origins = [loaded.origins[f"syncd_{name}"] for name in ("lease", "retry_base", "retry_max", "log_level")]
    assert origins == [str(first), str(second), "environment", "default"]


def test_other_programs_variables_are_left_alone_in_the_environment_and_in_files(tmp_path: Path) -> None:
    load({"PATH": "/bin", "ALBERT_EINSTEIN": "1"}, [env_file(tmp_path, "POSTGRES_PASSWORD=x\n")])


def test_unknown_name_in_a_file_is_told_with_the_file(tmp_path: Path) -> None:
    file = env_file(tmp_path, "SYNCD_PASS_INTERVALL=5\n")
    assert problems({"SYNCD_NONSENSE": "1"}, file) == [
        "SYNCD_NONSENSE is not a setting of syncd (environment)",
        f"SYNCD_PASS_INTERVALL is not a setting of syncd ({file}); did you mean SYNCD_PASS_INTERVAL?",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("SYNCD_LEASE=5\nnot a setting\n", 2),
        (f'ALBERT_TOKEN="{SECRET}\n', 1),
        ("SYNCD_LEASE\n", 1),
        ("SYNCD_LEASE: 5\n", 1),
    ],
)
def test_line_that_sets_nothing_is_told_with_its_number_and_not_its_text(tmp_path: Path, text: str, line: int) -> None:
    file = env_file(tmp_path, text)
    assert problems({}, file) == [f"{file}, line {line}: it is not NAME=value"]


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    latin = tmp_path / "latin.env"
    latin.write_bytes(b"SYNCD_LEASE=5 # \xe9\n")
    assert problems({}, tmp_path / "none.env", tmp_path, latin) == [
        f"the environment file {tmp_path / 'none.env'} cannot be read: No such file or directory",
        f"the environment file {tmp_path} cannot be read: Is a directory",
        f"the environment file {latin} cannot be read: it is not UTF-8 text",
    ]


def test_secret_is_read_from_the_file_that_name_file_names(tmp_path: Path) -> None:
    secret = env_file(tmp_path, f"{SECRET}\n", "token")
    url = env_file(tmp_path, "sqlite:///elsewhere.db\n", "url")
    loaded = load({"ALBERT_TOKEN_FILE": str(secret), "SYNCD_DATABASE_URL_FILE": str(url)}, credentials=True)
    assert loaded.settings.albert_token is not None
    assert loaded.settings.albert_token.get_secret_value() == SECRET
    assert loaded.settings.syncd_database_url.get_secret_value() == "sqlite+aiosqlite:///elsewhere.db"
    assert loaded.origins["albert_token"] == f"environment: ALBERT_TOKEN_FILE={secret}"
    assert SECRET not in repr(loaded)


def test_secret_file_that_is_not_there_empty_or_no_text_is_told(tmp_path: Path) -> None:
    empty = env_file(tmp_path, "\n", "empty")
    raw = tmp_path / "raw"
    raw.write_bytes(b"\xff\xfe")
    environment = {
        "ALBERT_TOKEN_FILE": str(tmp_path / "none"),
        "ALBERT_CLIENT_ID_FILE": str(empty),
        "ALBERT_CLIENT_SECRET_FILE": str(raw),
        "SYNCD_DATABASE_URL_FILE": "a\0b",
    }
    assert problems(environment, credentials=True) == [
        f"ALBERT_TOKEN_FILE: {tmp_path / 'none'} cannot be read: No such file or directory",
        f"ALBERT_CLIENT_ID_FILE: {empty} is empty",
        f"ALBERT_CLIENT_SECRET_FILE: {raw} cannot be read: it is not UTF-8 text",
        "SYNCD_DATABASE_URL_FILE: it is not the name of a file",
    ]


def test_name_and_name_file_in_one_place_contradict_each_other(tmp_path: Path) -> None:
    secret = env_file(tmp_path, SECRET, "token")
    assert problems({"ALBERT_TOKEN": "a", "ALBERT_TOKEN_FILE": str(secret)}) == [
        "ALBERT_TOKEN and ALBERT_TOKEN_FILE are both set (environment); use one of them"
    ]


def test_name_file_of_the_environment_wins_over_a_name_in_a_file_and_the_other_way_round(tmp_path: Path) -> None:
    secret = env_file(tmp_path, "from-secret-file", "token")
    plain = env_file(tmp_path, "ALBERT_TOKEN=from-env-file\n", "plain.env")
    named = env_file(tmp_path, f"ALBERT_TOKEN_FILE={secret}\n", "named.env")
    for environment, file, token in (
        ({"ALBERT_TOKEN_FILE": str(secret)}, plain, "from-secret-file"),
        ({"ALBERT_TOKEN": "from-environment"}, named, "from-environment"),
    ):
        found = load(environment, [file]).settings.albert_token
        assert found is not None
        assert found.get_secret_value() == token


def test_secrets_do_not_show_in_the_settings_themselves() -> None:
    settings = load({"ALBERT_TOKEN": SECRET, "SYNCD_DATABASE_URL": f"postgresql://u:{SECRET}@h/d"}).settings
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())
