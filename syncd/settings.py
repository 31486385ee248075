"""Settings: environment files and the environment, judged as a whole before anything is contacted.

The environment wins over files, later files over earlier ones; `NAME_FILE` names a file that holds the value. Every
problem is listed at once (`SettingsError`). The one place where defaults stand; `config/syncd.env` is held to it by a
test.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import pydantic
from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from syncd.errors import SettingsError

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Period = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

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
    syncd_operations_concurrency: Count = Field(16, description="operations in flight at once")
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

    @pydantic.field_validator("syncd_log_level", "syncd_log_format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:  # noqa: ANN401 - not validated yet
        return value.lower() if isinstance(value, str) else value

    @pydantic.field_validator("albert_base_url")
    @classmethod
    def _origin(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be a URL such as https://app.albertinvent.com")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must have no user, query or fragment")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("must be https: a token is not sent in the clear, except to loopback")
        return value.rstrip("/")

    @pydantic.field_validator("syncd_database_url")
    @classmethod
    def _database(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        scheme, _, rest = url.partition("://")
        driver = {
            "sqlite": "sqlite+aiosqlite",
            "postgresql": "postgresql+asyncpg",
            "postgres": "postgresql+asyncpg",
        }
        scheme = driver.get(scheme, scheme)
        if scheme not in driver.values() or not rest.strip("/") or ":memory:" in rest:
            raise ValueError("must be sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER@HOST/DATABASE")
        return SecretStr(f"{scheme}://{rest}")

    @property
    def has_credentials(self) -> bool:
        """Whether Albert can be talked to."""
        return self.albert_token is not None or (
            self.albert_client_id is not None and self.albert_client_secret is not None
        )


class Loaded(BaseModel):
    """Settings, and where each came from: `default`, `environment` or the name of a file."""

    settings: Settings
    origins: dict[str, str]


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
        f"{name} is not a setting of syncd ({origins[name]})"
        for name in sorted(values)
        if name.startswith("SYNCD_") and name not in known
    ]
    _read_files(values, origins, problems)
    given = {name.lower(): values[name] for name in values if name.lower() in Settings.model_fields}
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(given)
    except pydantic.ValidationError as error:
        problems += [_problem(one) for one in error.errors(include_url=False, include_input=False)]
    problems += _credential_problems(values, needed=credentials)
    if problems or settings is None:
        raise SettingsError(problems)
    return Loaded(
        settings=settings,
        origins={name: origins.get(name.upper(), "default") for name in Settings.model_fields},
    )


def _gather(
    environment: Mapping[str, str], files: Sequence[Path], problems: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    for file in files:
        try:
            found = dotenv_values(file, interpolate=False) if file.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"the environment file {file} cannot be read: {error}")
            continue
        if found is None:
            problems.append(f"the environment file {file} is not there")
            continue
        for name, value in found.items():
            if value:
                values[name], origins[name] = value, str(file)
    for name, value in environment.items():
        if value and name.startswith(("SYNCD_", "ALBERT_")):
            values[name], origins[name] = value, "environment"
    return values, origins


def _read_files(values: dict[str, str], origins: dict[str, str], problems: list[str]) -> None:
    """Put the content of `NAME_FILE` in the place of `NAME`."""
    for name in FROM_FILES:
        file = values.get(f"{name}_FILE")
        if file is None:
            continue
        if name in values:
            problems.append(f"{name} and {name}_FILE are both set; use one of them")
            continue
        try:
            content = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            problems.append(f"{name}_FILE: {file} cannot be read: {reason}")
            continue
        if not content:
            problems.append(f"{name}_FILE: {file} is empty")
            continue
        values[name], origins[name] = content, f"{origins[f'{name}_FILE']}: {name}_FILE={file}"


def _problem(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    name = str(error["loc"][0]).upper() if error["loc"] else "settings"
    words = str(error["msg"]).removeprefix("Value error, ")
    return f"{name}: {words[0].lower()}{words[1:]}"


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
