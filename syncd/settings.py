"""Settings: environment files and the environment, judged as a whole before anything is contacted.

The environment wins over files, later files over earlier ones; `NAME_FILE` names a file that holds the value. Every
problem is listed at once (`SettingsError`). The one place where defaults stand; `config/syncd.env` is held to it by a
test.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

import pydantic
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from syncd.errors import SettingsError
from syncd.urls import base_url_problem, is_host

LONGEST = 1e9
"""Seconds, about 31 years: what is longer cannot be added to a date."""
Seconds = Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]
Period = Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Concurrency = Annotated[int, Field(ge=1, le=1000)]

FROM_FILES = ("ALBERT_TOKEN", "ALBERT_CLIENT_ID", "ALBERT_CLIENT_SECRET", "SYNCD_DATABASE_URL")
"""The settings that may be given as `NAME_FILE`."""


class Settings(BaseModel):
    """The settings in force; a field's name in upper case is its name in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    albert_base_url: str = Field("https://app.albertinvent.com", description="Albert; https only, except on loopback")
    albert_token: SecretStr | None = Field(None, description="a token; or both of the next two")
    albert_client_id: SecretStr | None = Field(None, description="the id of client credentials")
    albert_client_secret: SecretStr | None = Field(None, description="the secret of client credentials")
    syncd_database_url: SecretStr = Field(
        SecretStr("sqlite+aiosqlite:///syncd.db"),
        description="the mirror: sqlite+aiosqlite:///FILE (////FILE for an absolute path) or postgresql+asyncpg://...",
    )
    syncd_auto_migrate: bool = Field(default=True, description="bring the schema to head at the start of run and once")
    syncd_pass_interval: Period = Field(300, description="seconds between the starts of passes")
    syncd_reconcile_interval: Period = Field(300, description="seconds between rounds over the source ids")
    syncd_operations_concurrency: Concurrency = Field(16, description="operations in flight at once")
    syncd_operations_max_attempts: Count = Field(8, description="attempts at an operation before it is dead")
    syncd_retry_base: Seconds = Field(0.5, description="seconds; the first wait is drawn from nothing to this")
    syncd_retry_max: Seconds = Field(300, description="seconds; the longest wait, but for a Retry-After")
    syncd_unknown_settle: Seconds = Field(
        60, description="seconds over which a create with a lost answer is looked up before it is sent again"
    )
    syncd_lease: Period = Field(60, description="seconds that a claimed operation is held without a heartbeat")
    syncd_request_timeout: Period = Field(30, description="seconds for a request as a whole")
    syncd_max_response_bytes: Count = Field(67_108_864, description="the largest answer, after decompression")
    syncd_max_requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="one limit over all requests; none when not set"
    )
    syncd_max_pass_pages: Count = Field(1_000_000, description="pages after which a pass ends as partial")
    syncd_max_pass_seconds: Period = Field(21_600, description="seconds after which a pass ends as partial")
    syncd_delete_grace: Seconds = Field(120, description="seconds that a session must be missing")
    syncd_delete_confirmations: Count = Field(
        2, description="complete passes that must miss it, each confirmed by a 404 or 410 of its own"
    )
    syncd_delete_max_count: Annotated[int, Field(ge=0)] = Field(
        25, description="a sweep is held when more than the larger of this and the next would go"
    )
    syncd_delete_max_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05, description="the same, as a part of the live sessions"
    )
    syncd_status_host: str = Field("127.0.0.1", description="where the status server listens")
    syncd_status_port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="its port; 0 turns it off")
    syncd_shutdown_grace: Seconds = Field(10, description="seconds that running requests get after SIGTERM")
    syncd_log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least that is logged"
    )
    syncd_log_format: Literal["json", "console", "auto"] = Field(
        "auto", description="json, console, or auto: console on a terminal"
    )

    _files: dict[str, Path] = PrivateAttr(default_factory=dict)

    def file_of(self, name: str) -> Path | None:
        """Return the file that a setting was read from, which may say something else by now; None for no file."""
        return self._files.get(name)

    @pydantic.field_validator("syncd_log_level", "syncd_log_format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:  # noqa: ANN401 - not validated yet
        return value.lower() if isinstance(value, str) else value

    @pydantic.field_validator("albert_base_url")
    @classmethod
    def _origin(cls, value: str) -> str:
        if (problem := base_url_problem(value)) is not None:
            raise ValueError(problem)
        return value.rstrip("/")

    @pydantic.field_validator("syncd_status_host")
    @classmethod
    def _host(cls, value: str) -> str:
        if not is_host(value):
            raise ValueError("must be a host name or an IP address, such as 127.0.0.1")
        return value

    @pydantic.field_validator("albert_token", "albert_client_id", "albert_client_secret")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _SENDABLE.fullmatch(value.get_secret_value().strip()):
            raise ValueError("holds a space, a control character or a letter that is not ASCII; was it copied whole?")
        return None if value is None else SecretStr(value.get_secret_value().strip())

    @pydantic.field_validator("syncd_database_url")
    @classmethod
    def _database(cls, value: SecretStr) -> SecretStr:
        scheme, _, rest = value.get_secret_value().partition("://")
        driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
        url = f"{driver.get(scheme, scheme)}://{rest}"
        if not (_SQLITE_FILE.fullmatch(url) or _is_postgresql(url)):
            raise ValueError(
                "must be sqlite+aiosqlite:///FILE (three slashes, four before an absolute path) or "
                "postgresql+asyncpg://USER@HOST/DATABASE"
            )
        if url.startswith("postgresql") and (wrong := _wrong_option(url)) is not None:
            raise ValueError(wrong)
        return SecretStr(url)


_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_SENDABLE = re.compile(r"[\x21-\x7e]+")
_SQLITE_FILE = re.compile(r"sqlite\+aiosqlite:///(?!file:|/*:memory:)[^?\x00-\x1f]*[^?/\x00-\x1f]")


def _split(url: str) -> SplitResult | None:
    """Take a URL apart; None for what is none, such as one whose port is no port."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    try:
        return None if parts.port == 0 else parts
    except ValueError:
        return None


def _is_postgresql(url: str) -> bool:
    parts = _split(url)
    return (
        parts is not None
        and parts.scheme == "postgresql+asyncpg"
        and bool(parts.path.strip("/"))
        and not _UNSAFE.search(url)
    )


_SSL = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_OPTIONS = {
    "ssl": re.compile("|".join(_SSL)),
    "prepared_statement_cache_size": re.compile("[0-9]{1,6}"),
    "target_session_attrs": re.compile("any|primary|standby|read-write|read-only|prefer-standby"),
    "host": re.compile(".+"),
    "port": re.compile("[0-9]{1,5}"),
    "passfile": re.compile(".+"),
}
"""What may stand behind the `?` of a PostgreSQL URL: the driver would fail on anything else with words of its own."""


def _wrong_option(url: str) -> str | None:
    """Say what is wrong behind the `?` of a PostgreSQL URL; None when nothing is."""
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in _OPTIONS:
            return f"has an option {name!r} that is not known; known are {', '.join(_OPTIONS)}"
        if not _OPTIONS[name].fullmatch(value):
            known = f"; it is one of {', '.join(_SSL)}" if name == "ssl" else ""
            return f"has an option {name!r} that cannot be {value!r}{known}"
    return None


class Loaded(BaseModel):
    """Settings, and where each came from: `default`, `environment` or the name of a file."""

    settings: Settings
    origins: dict[str, str]


def load(environment: Mapping[str, str], files: Sequence[Path] = (), *, credentials: bool = False) -> Loaded:
    """Read the settings.

    Parameters
    ----------
    environment : Mapping[str, str]
        Such as `os.environ`; an empty value counts as not set.
    files : Sequence[Path]
        Environment files; later ones win over earlier ones, and the environment over all of them.
    credentials : bool
        Whether the command talks to Albert.

    Raises
    ------
    SettingsError
        With every problem that there is.
    """
    problems: list[str] = []
    values, origins = _gather(environment, files, problems)
    known = {name.upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in FROM_FILES}
    problems += [
        f"{name} is not a setting of syncd ({origins[name]}){_meant(name, known)}"
        for name in sorted(values)
        if name.startswith("SYNCD_") and name not in known
    ]
    files_of = _read_files(values, origins, problems)
    given = {name.lower(): values[name] for name in values if name.lower() in Settings.model_fields}
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(given)
        settings._files.update(files_of)  # noqa: SLF001 - no setting of its own, so no field
    except pydantic.ValidationError as error:
        problems += [_problem(one) for one in error.errors(include_url=False, include_input=False)]
    problems += _credential_problems(values, needed=credentials)
    if problems or settings is None:
        raise SettingsError(problems)
    return Loaded(
        settings=settings,
        origins={name: origins.get(name.upper(), "default") for name in Settings.model_fields},
    )


def _meant(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), 1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""


def _gather(
    environment: Mapping[str, str], files: Sequence[Path], problems: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Lay the files and the environment over each other; a later layer's NAME_FILE outdoes an earlier one's NAME."""
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    ours = {name: value for name, value in environment.items() if name.startswith(("SYNCD_", "ALBERT_"))}
    layers = [(str(file), _read_env_file(file, problems)) for file in files]
    for origin, layer in [*layers, ("environment", ours)]:
        given = {name: value for name, value in layer.items() if value}
        for name in FROM_FILES:
            other = f"{name}_FILE"
            if name in given and other in given:
                problems.append(f"{name} and {other} are both set ({origin}); use one of them")
            elif name in given:
                values.pop(other, None)
            elif other in given:
                values.pop(name, None)
        values |= given
        origins |= dict.fromkeys(given, origin)
    return values, origins


def _read_env_file(file: Path, problems: list[str]) -> dict[str, str]:
    """Read one environment file; a line that is none of `NAME=value` is a problem, since it may be a lost setting."""
    from dotenv.parser import parse_stream  # noqa: PLC0415 - most commands are called without a file

    try:
        with file.open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"the environment file {file} cannot be read: {_why(error)}")
        return {}
    problems += [
        f"{file}, line {binding.original.line}: it is not NAME=value"
        for binding in bindings
        if binding.error or (binding.key is not None and binding.value is None)
    ]
    return {binding.key: binding.value or "" for binding in bindings if binding.key is not None}


def _why(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8 text"


def _read_files(values: dict[str, str], origins: dict[str, str], problems: list[str]) -> dict[str, Path]:
    """Put the content of `NAME_FILE` in the place of `NAME`; return the files, by field."""
    files = {}
    for name in FROM_FILES:
        file = values.get(f"{name}_FILE")
        if file is None or name in values:
            continue
        try:
            content = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}_FILE: {file} cannot be read: {_why(error)}")
            continue
        except ValueError:
            problems.append(f"{name}_FILE: it is not the name of a file")
            continue
        if not content:
            problems.append(f"{name}_FILE: {file} is empty")
            continue
        values[name], origins[name] = content, f"{origins[f'{name}_FILE']}: {name}_FILE={file}"
        files[name.lower()] = Path(file)
    return files


def _problem(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    name = str(error["loc"][0]).upper() if error["loc"] else "settings"
    words = (
        str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be").partition(", unable")[0]
    )
    return f"{name}: {words}"


def _credential_problems(values: Mapping[str, str], *, needed: bool) -> list[str]:
    pair = [name for name in ("ALBERT_CLIENT_ID", "ALBERT_CLIENT_SECRET") if name in values or f"{name}_FILE" in values]
    if "ALBERT_TOKEN" in values or "ALBERT_TOKEN_FILE" in values or len(pair) == 2:  # noqa: PLR2004 - both of them
        return []
    if pair:
        missing = {"ALBERT_CLIENT_ID", "ALBERT_CLIENT_SECRET"} - set(pair)
        return [f"{pair[0]} is set and {missing.pop()} is not; client credentials need both"]
    if needed:
        return ["no credentials: set ALBERT_TOKEN, or ALBERT_CLIENT_ID and ALBERT_CLIENT_SECRET (or NAME_FILE of them)"]
    return []
