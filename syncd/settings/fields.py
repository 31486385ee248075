"""The settings with their defaults, and the rules for each value.

`load` builds a `Settings` from text. This is the one place of the defaults: tests compare `config/syncd.env` and
`docs/settings.md` with it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr

from syncd.durations import parse_duration
from syncd.settings.database_url import checked_database_url
from syncd.urls import base_url_problem, is_host, notify_url_problem, proxy_problem

_LONGEST = 1e9
"""Seconds, about 31 years: a longer duration cannot be added to a date."""


def _seconds(value: Any) -> Any:  # noqa: ANN401 - not validated yet
    return parse_duration(value) if isinstance(value, str) else value


_Duration = Annotated[float, BeforeValidator(_seconds), Field(le=_LONGEST, allow_inf_nan=False)]
Seconds: TypeAlias = Annotated[_Duration, Field(ge=0)]
Period: TypeAlias = Annotated[_Duration, Field(gt=0)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=10**12)]
Concurrency: TypeAlias = Annotated[int, Field(ge=1, le=1000)]

FROM_FILES = (
    "ALBERT_TOKEN",
    "ALBERT_CLIENT_ID",
    "ALBERT_CLIENT_SECRET",
    "SYNCD_DATABASE_URL",
    "SYNCD_PROXY",
    "SYNCD_NOTIFY_URL",
)
"""The settings that can be given as `NAME_FILE`."""
CREDENTIALS = ("albert_token", "albert_client_id", "albert_client_secret")

_SECONDS = "a duration in seconds of 0 or more"
_PERIOD = "a duration in seconds of more than 0"
_COUNT = "a whole number of 1 or more"
_SWITCH = "true or false"


def _setting(default: Any, description: str, expected: str, *examples: str) -> Any:  # noqa: ANN401 - as pydantic's Field
    """Declare a setting; `expected` (with the unit) and the examples appear in error messages."""
    return Field(default, description=description, examples=list(examples), json_schema_extra={"expected": expected})


class Settings(BaseModel):
    """The settings in force; a field's name in upper case is its name in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    albert_base_url: str = _setting(
        "https://app.albertinvent.com", "Albert; https only, except on loopback",
        "an https URL", "https://app.albertinvent.com",
    )  # fmt: skip
    albert_token: SecretStr | None = _setting(
        None,
        "a token; not needed if the client credentials are set",
        "a token",
        "ALBERT_TOKEN_FILE=/run/secrets/albert_token",
    )
    albert_client_id: SecretStr | None = _setting(
        None, "the id of client credentials", "a client id", "ALBERT_CLIENT_ID_FILE=/run/secrets/albert_client_id"
    )
    albert_client_secret: SecretStr | None = _setting(
        None, "the secret of client credentials",
        "a client secret", "ALBERT_CLIENT_SECRET_FILE=/run/secrets/albert_client_secret",
    )  # fmt: skip
    syncd_database_url: SecretStr = _setting(
        SecretStr("sqlite+aiosqlite:///syncd.db"),
        "the mirror: sqlite+aiosqlite:///FILE (////FILE for an absolute path) or postgresql+asyncpg://...",
        "the URL of a database",
        "sqlite+aiosqlite:////var/lib/syncd/syncd.db", "postgresql+asyncpg://syncd:p%40ss@db.example.com/syncd",
    )  # fmt: skip
    syncd_auto_migrate: bool = _setting(
        True,  # noqa: FBT003 - a default
        "bring the schema to head at the start of run and once", _SWITCH, "false",
    )  # fmt: skip
    syncd_pass_interval: Period = _setting(300, "seconds between the starts of passes", _PERIOD, "300", "5m")
    syncd_reconcile_interval: Period = _setting(300, "seconds between rounds over the source ids", _PERIOD, "300", "5m")
    syncd_operations_concurrency: Concurrency = _setting(
        16, "operations in flight at once", "a whole number from 1 to 1000", "16"
    )
    syncd_operations_max_attempts: Count = _setting(
        8, "attempts at an operation before it is dead", _COUNT, "8"
    )  # fmt: skip
    syncd_retry_base: Seconds = _setting(
        0.5, "seconds; the first wait between attempts is random, from 0 to this", _SECONDS, "0.5", "2s"
    )
    syncd_retry_max: Seconds = _setting(
        300, "seconds; the longest wait between attempts, except for a Retry-After", _SECONDS, "300", "5m"
    )
    syncd_unknown_settle: Seconds = _setting(
        60, "seconds over which a create with a lost answer is looked up before it is sent again", _SECONDS, "60", "1m"
    )
    syncd_lease: Period = _setting(
        60, "seconds that a claimed operation is held without a renewal", _PERIOD, "60", "1m"
    )
    syncd_request_timeout: Period = _setting(30, "seconds for a whole request", _PERIOD, "30", "30s")
    syncd_max_response_bytes: Count = _setting(
        67_108_864, "bytes of the largest answer, after decompression", "a number of bytes of 1 or more", "67108864"
    )
    syncd_max_requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = _setting(
        None, "one limit over all requests; none when not set", "a number of requests of more than 0", "10", "0.5"
    )
    syncd_proxy: SecretStr | None = _setting(
        None, "an http(s) proxy for all requests to Albert; it can contain a user name and a password",
        "the URL of a proxy", "http://proxy.example.com:3128", "http://USER:p%40ss@proxy.example.com:3128",
    )  # fmt: skip
    syncd_ca_file: Path | None = _setting(
        None, "a file of CA certificates (PEM) that are trusted in addition to the system's",
        "a file of certificates", "/etc/ssl/certs/company-ca.pem",
    )  # fmt: skip
    syncd_max_pass_pages: Count = _setting(
        1_000_000, "pages after which a pass ends as partial", _COUNT, "1000000"
    )  # fmt: skip
    syncd_max_pass_seconds: Period = _setting(
        21_600, "seconds after which a pass ends as partial", _PERIOD, "21600", "6h"
    )
    syncd_read_ahead: Annotated[int, Field(ge=0, le=32)] = _setting(
        0, "pages that a pass requests early, by the page keys of the last complete pass",
        "a whole number from 0 to 32", "0", "8",
    )  # fmt: skip
    syncd_folders: bool = _setting(True, "mirror chat folders", _SWITCH, "false")  # noqa: FBT003 - a default
    syncd_delete_grace: Seconds = _setting(
        120, "seconds that a session must be missing before it is deleted", _SECONDS, "120", "2m"
    )
    syncd_delete_confirmations: Count = _setting(
        2, "complete passes that must find the session missing, each confirmed by a 404 or 410", _COUNT, "2"
    )
    syncd_delete_max_count: Annotated[int, Field(ge=0)] = _setting(
        25,
        "sessions that a pass may delete; a pass that would delete more is held for a person",
        "a whole number of 0 or more", "25",
    )  # fmt: skip
    syncd_delete_max_fraction: Annotated[float, Field(ge=0, le=1)] = _setting(
        0.05,
        "the same, as a fraction of the live sessions; the larger of the two limits applies",
        "a fraction from 0 to 1",
        "0.05",
    )
    syncd_status_host: str = _setting(
        "127.0.0.1", "the address where the status server listens", "a host name or an IP address", "127.0.0.1"
    )
    syncd_status_port: Annotated[int, Field(ge=0, le=65535)] = _setting(
        8080, "its port; 0 turns it off", "a port from 0 to 65535", "8080"
    )
    syncd_shutdown_grace: Seconds = _setting(
        10, "seconds that running requests get after SIGTERM", _SECONDS, "10", "10s"
    )
    syncd_log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "the lowest level that is logged", "debug, info, warning or error", "info"
    )
    syncd_log_format: Literal["json", "console", "auto"] = _setting(
        "auto", "json, console, or auto: console on a terminal", "json, console or auto", "json"
    )
    syncd_notify_url: SecretStr | None = _setting(
        None, "receives a JSON POST for each change of the health; none when not set",
        "an http(s) URL", "https://hooks.example.com/syncd",
    )  # fmt: skip
    syncd_env_file: str | None = _setting(
        None, "environment files, as with --env-file, separated by :; only in the environment",
        "files separated by :", "/etc/syncd/syncd.env:/etc/syncd/secrets.env",
    )  # fmt: skip

    _files: dict[str, Path] = PrivateAttr(default_factory=dict)

    def file_of(self, name: str) -> Path | None:
        """Return the file that a setting was read from; None for a setting without a file, or from a pipe.

        The content can have changed since then: mounted secrets are rotated.
        """
        return self._files.get(name)

    @property
    def credentials(self) -> Literal["token", "client credentials"]:
        """The kind of credentials that requests use; a token wins over client credentials."""
        return "client credentials" if self.albert_token is None else "token"

    def with_credentials_of(self, other: Settings) -> Settings:
        """Return these settings with the credentials of other ones, and their files."""
        copied = self.model_copy(update={name: getattr(other, name) for name in CREDENTIALS})
        files = {name: file for name, file in self._files.items() if name not in CREDENTIALS}
        files |= {name: file for name in CREDENTIALS if (file := other.file_of(name)) is not None}
        copied._files = files  # noqa: SLF001 - of the same class
        return copied

    @pydantic.field_validator("syncd_log_level", "syncd_log_format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:  # noqa: ANN401 - not validated yet
        return value.lower() if isinstance(value, str) else value

    @pydantic.field_validator("albert_base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        if (problem := base_url_problem(value)) is not None:
            raise ValueError(problem)
        return value.rstrip("/")

    @pydantic.field_validator("syncd_status_host")
    @classmethod
    def _host(cls, value: str) -> str:
        if not is_host(value):
            raise ValueError("must be a host name or an IP address")
        return value

    @pydantic.field_validator("albert_token", "albert_client_id", "albert_client_secret")
    @classmethod
    def _credential(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (problem := _credential_problem(value.get_secret_value())) is not None:
            raise ValueError(problem)
        return value

    @pydantic.field_validator("syncd_database_url")
    @classmethod
    def _database_url(cls, value: SecretStr) -> SecretStr:
        return SecretStr(checked_database_url(value.get_secret_value()))

    @pydantic.field_validator("syncd_proxy")
    @classmethod
    def _proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (problem := proxy_problem(value.get_secret_value())) is not None:
            raise ValueError(problem)
        return value

    @pydantic.field_validator("syncd_notify_url")
    @classmethod
    def _notify_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (problem := notify_url_problem(value.get_secret_value())) is not None:
            raise ValueError(problem)
        return value


_SENDABLE = re.compile(r"[\x21-\x7e]+")
_SCHEME = re.compile(r"bearer\s", re.IGNORECASE)


def _credential_problem(text: str) -> str | None:
    """Return why a text cannot be a token, a client id or a client secret. It must fit into a header."""
    if _SCHEME.match(text):
        return "begins with 'Bearer'; syncd adds this word itself, so remove it"
    if text[:1] in {'"', "'"} or text[-1:] in {'"', "'"}:
        return "begins or ends with a quotation mark; remove it"
    if not _SENDABLE.fullmatch(text):
        return "contains a space or a character that is not ASCII; was it copied completely?"
    return None
