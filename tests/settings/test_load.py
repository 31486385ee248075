"""Settings: every problem at once, without secrets; the environment overrides later files, these earlier ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from syncd.settings import Settings, load
from tests.settings.helpers import SECRET, env_file, problems


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
        "max_pass_pages": 1_000_000, "max_pass_seconds": 21600, "proxy": None, "ca_file": None, "notify_url": None,
        "env_file": None, "folders": True, "read_ahead": 0,
    }  # fmt: skip
    for name, value in given.items():
        assert getattr(settings, f"syncd_{name}") == value, name


def test_every_problem_is_listed_at_once() -> None:
    messages = problems(
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
            "SYNCD_PROXY": "proxy:3128",
            "SYNCD_CA_FILE": "none.pem",
            "SYNCD_NOTIFY_URL": "mailto:me",
            "SYNCD_FOLDERS": "some",
            "SYNCD_ENV_FILE": "none.env",
        },
        credentials=True,
    )
    named = {re.split("[^A-Z_]", problem)[0] for problem in messages}
    assert named == {
        "ALBERT_BASE_URL", "ALBERT_CLIENT_ID", "SYNCD_DATABASE_URL", "SYNCD_PASS_INTERVAL", "SYNCD_LEASE",
        "SYNCD_DELETE_GRACE", "SYNCD_DELETE_MAX_FRACTION", "SYNCD_STATUS_PORT", "SYNCD_OPERATIONS_CONCURRENCY",
        "SYNCD_OPERATIONS_MAX_ATTEMPTS", "SYNCD_AUTO_MIGRATE", "SYNCD_LOG_LEVEL", "SYNCD_LOG_FORMAT",
        "SYNCD_RETRY_MAX", "SYNCD_UNKNOWN_SETTLE", "SYNCD_TYPO", "SYNCD_LEASE_FILE",
        "SYNCD_PROXY", "SYNCD_CA_FILE", "SYNCD_NOTIFY_URL", "SYNCD_FOLDERS", "SYNCD_ENV_FILE",
    }  # fmt: skip


def test_problem_has_the_value_the_origin_the_unit_and_an_example(tmp_path: Path) -> None:
    file = env_file(tmp_path, "# one\nSYNCD_PASS_INTERVAL=5x\n")
    assert problems({"SYNCD_LEASE": "0", "SYNCD_STATUS_PORT": "70000", "SYNCD_MAX_RESPONSE_BYTES": "1k"}, file) == [
        (
            f"SYNCD_PASS_INTERVAL='5x' ({file}:2): is not a duration; write seconds, or a number with the unit s, m, h "
            "or d; example: 300 or 5m"
        ),
        "SYNCD_LEASE='0' (environment): must be a duration in seconds of more than 0, such as 60 or 1m",
        "SYNCD_MAX_RESPONSE_BYTES='1k' (environment): must be a number of bytes of 1 or more, such as 67108864",
        "SYNCD_STATUS_PORT='70000' (environment): must be a port from 0 to 65535, such as 8080",
    ]


def test_problem_with_a_value_that_is_too_large_names_the_largest() -> None:
    assert problems({"SYNCD_LEASE": "99999d", "SYNCD_STATUS_PORT": "70000"}) == [
        (
            "SYNCD_LEASE='99999d' (environment): must be a duration in seconds of more than 0, such as 60 or 1m, and "
            "at most 1000000000"
        ),
        "SYNCD_STATUS_PORT='70000' (environment): must be a port from 0 to 65535, such as 8080",
    ]


def test_value_that_is_no_url_is_shown_whole() -> None:
    (problem,) = problems({"SYNCD_LEASE": "#7"})
    assert problem.startswith("SYNCD_LEASE='#7' (environment): ")


def test_examples_of_every_setting_are_accepted(tmp_path: Path) -> None:
    for name, field in Settings.model_fields.items():
        assert isinstance(field.json_schema_extra, dict)
        assert field.json_schema_extra["expected"]
        assert field.examples
        for example in map(str, field.examples):
            if name not in {"syncd_ca_file", "syncd_env_file"} and "_FILE=" not in example:
                load({name.upper(): example})


def test_bounds_that_a_message_names_are_those_of_the_setting() -> None:
    for name, field in Settings.model_fields.items():
        assert isinstance(field.json_schema_extra, dict)
        expected = str(field.json_schema_extra["expected"])
        bounds = re.search(r"from (\S+) to (\S+)", expected)
        exclusive, least = re.search(r"of more than (\S+)", expected), re.search(r"of (\S+) or more", expected)
        if bounds is not None:
            refused, taken = [str(float(bounds[1]) - 1), str(float(bounds[2]) + 1)], [bounds[1], bounds[2]]
        elif exclusive is not None:
            refused, taken = [exclusive[1]], [str(float(exclusive[1]) + 1).removesuffix(".0")]
        elif least is not None:
            refused, taken = [str(int(least[1]) - 1)], [least[1]]
        else:
            continue
        for value in taken:
            load({name.upper(): value})
        for value in refused:
            assert len(problems({name.upper(): value})) == 1, (name, value)


def test_missing_credentials_are_a_problem_of_commands_that_send_requests_to_albert() -> None:
    load({})
    (problem,) = problems({}, credentials=True)
    assert problem == (
        "no credentials: set ALBERT_TOKEN, or ALBERT_CLIENT_ID and ALBERT_CLIENT_SECRET, in the environment or an "
        "environment file, or name a file that holds one, such as ALBERT_TOKEN_FILE=/run/secrets/albert_token"
    )
    assert load({"ALBERT_TOKEN": "t"}, credentials=True).settings.albert_token is not None
    pair = {"ALBERT_CLIENT_ID": "i", "ALBERT_CLIENT_SECRET": "s"}
    assert load(pair, credentials=True).settings.albert_client_secret is not None


@pytest.mark.parametrize(("there", "missing"), [("ID", "SECRET"), ("SECRET", "ID")])
def test_half_of_the_client_credentials_is_a_problem(there: str, missing: str) -> None:
    (problem,) = problems({f"ALBERT_CLIENT_{there}": "x"})
    assert problem.startswith(f"ALBERT_CLIENT_{there} is set and ALBERT_CLIENT_{missing} is not")


def test_missing_credentials_name_what_was_set_instead() -> None:
    (problem,) = problems({"ALBERT_API_KEY": SECRET}, credentials=True)
    assert problem.endswith("Set, but not settings of syncd: ALBERT_API_KEY")


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
        {"SYNCD_PROXY": f"http://user:{SECRET}@proxy:port"},
        {"SYNCD_PROXY": f"http://user:@{SECRET}@proxy:3128"},
        {"SYNCD_NOTIFY_URL": f"hooks.example.com/{SECRET}"},
        {"ALBERT_TOKEN_FILE": SECRET},
        {"ALBERT_TOKEN": SECRET, "SYNCD_LOG_LEVEL": SECRET},
        {"ALBERT_TOKEN": SECRET, "SYNCD_TYPO": f"x{SECRET}x"},
        {"ALBERT_TOKN": SECRET},
        {"SYNCD_API_KEY": SECRET},
        {"SYNCD_BEARER": SECRET},
        {"SYNCD_JWT": SECRET},
        {"SYNCD_ALBERT": f"eyJhbGciOi.{SECRET}.x"},
        {"SYNCD_ALBERT": f"'Bearer eyJhbGciOi.{SECRET}.x'"},
        {"SYNCD_LOG_LEVEL": f"eyJhbGciOi.{SECRET}.x"},
        {"SYNCD_PASS_INTERVALL": f"eyJhbGciOi.{SECRET}.x"},
        {"SYNCD_DATABASEURL": f"postgresql://u:{SECRET}@h/d"},
        {"SYNCD_TYPO": f"postgresql://u:@{SECRET}@h/d"},
    ],
)
def test_problem_does_not_repeat_a_secret(environment: dict[str, str]) -> None:
    messages = problems(environment)
    assert len(messages) == 1
    assert SECRET not in messages[0]


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
    assert origins == [f"{first}:1", f"{second}:2", "environment", "default"]


def test_files_of_the_environment_come_before_those_of_the_command_line(tmp_path: Path) -> None:
    first = env_file(tmp_path, "SYNCD_LEASE=1\nSYNCD_RETRY_BASE=1\nSYNCD_RETRY_MAX=1\n", "first.env")
    second = env_file(tmp_path, "SYNCD_RETRY_BASE=2\nSYNCD_RETRY_MAX=2\n", "second.env")
    third = env_file(tmp_path, "SYNCD_RETRY_MAX=3\n", "third.env")
    loaded = load({"SYNCD_ENV_FILE": f"{first}:{second}:"}, [third])
    assert [getattr(loaded.settings, f"syncd_{name}") for name in ("lease", "retry_base", "retry_max")] == [1, 2, 3]
    assert loaded.origins["syncd_env_file"] == "environment"


def test_env_file_setting_in_a_file_is_a_problem(tmp_path: Path) -> None:
    file = env_file(tmp_path, "SYNCD_ENV_FILE=other.env\n")
    (problem,) = problems({}, file)
    assert problem.startswith(f"SYNCD_ENV_FILE ({file}:1) has an effect in the environment only")


def test_variables_of_other_programs_are_ignored_in_the_environment_and_in_files(tmp_path: Path) -> None:
    load({"PATH": "/bin", "ALBERT_EINSTEIN": "1"}, [env_file(tmp_path, "POSTGRES_PASSWORD=x\n")])


def test_unknown_name_is_reported_with_its_place_and_what_was_meant(tmp_path: Path) -> None:
    file = env_file(tmp_path, "\nSYNCD_PASS_INTERVALL=5\n")
    assert problems({"SYNCD_NONSENSE": "1"}, file) == [
        "SYNCD_NONSENSE='1' (environment) is not a setting of syncd; to see all settings, run: syncd config",
        (
            f"SYNCD_PASS_INTERVALL='5' ({file}:2) is not a setting of syncd; did you mean SYNCD_PASS_INTERVAL "
            "(a duration in seconds of more than 0, such as 300 or 5m)?"
        ),
    ]


def test_environment_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    latin, wide = tmp_path / "latin.env", tmp_path / "wide.env"
    latin.write_bytes(b"SYNCD_LEASE=5 # \xe9\n")
    wide.write_bytes("SYNCD_LEASE=5".encode("utf-16"))
    assert problems({"SYNCD_ENV_FILE": "a\0b"}, tmp_path / "n", tmp_path, latin, wide, Path("/dev/zero")) == [
        "SYNCD_ENV_FILE: the environment file 'a\\x00b' cannot be read: it is not the name of a file",
        f"--env-file: the environment file '{tmp_path / 'n'}' cannot be read: No such file or directory",
        f"--env-file: the environment file '{tmp_path}' cannot be read: Is a directory",
        f"--env-file: the environment file '{latin}' cannot be read: it is not UTF-8 text",
        f"--env-file: the environment file '{wide}' cannot be read: it is UTF-16 text; save it as UTF-8",
        "--env-file: the environment file '/dev/zero' cannot be read: it is larger than 1 MiB",
        (
            "SYNCD_ENV_FILE='a\\x00b' (environment): contains invisible characters: NUL (U+0000) at character 2; "
            "type the value again or copy it as plain text"
        ),
    ]


def test_secrets_do_not_show_in_the_settings_themselves() -> None:
    settings = load({"ALBERT_TOKEN": SECRET, "SYNCD_DATABASE_URL": f"postgresql://u:{SECRET}@h/d"}).settings
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())
