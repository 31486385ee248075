"""The client's session, made from the settings; `app` and the commands that only ask Albert call it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncd.aio import RateLimit
from syncd.albert import AlbertClientCredentials, AsyncAlbertSession
from syncd.errors import SettingsError
from syncd.settings import read_secret
from syncd.tls import client_context

if TYPE_CHECKING:
    import ssl

    from pydantic import SecretStr

    from syncd.albert.auth import Token
    from syncd.clock import Clock
    from syncd.settings import Settings


@dataclass
class CurrentSettings:
    """The settings in force; SIGHUP replaces them, and the session reads its credentials from here."""

    settings: Settings

    def secret(self, name: str) -> Callable[[], str]:
        """Return a function that reads a secret as it is now, from its file if it has one and the file is not a pipe.

        The function raises OSError or ValueError if the file cannot be read.
        """

        def read() -> str:
            file = self.settings.file_of(name)
            if file is not None:
                return read_secret(file)
            value: SecretStr | None = getattr(self.settings, name)
            return "" if value is None else value.get_secret_value()

        return read


def max_connections(settings: Settings) -> int:
    """Return how many requests all flows together send at once, at most."""
    return settings.syncd_operations_concurrency + settings.syncd_read_ahead + 20


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context that trusts SYNCD_CA_FILE; None without the setting.

    Raises
    ------
    SettingsError
        The file changed after the settings were read, and has no certificate now.
    """
    try:
        return client_context(None, settings.syncd_ca_file)
    except ValueError as error:
        raise SettingsError([f"SYNCD_CA_FILE='{settings.syncd_ca_file}': {error}; check with: syncd config"]) from error


def open_session(
    current: CurrentSettings,
    clock: Clock,
    after_request: Callable[[str, int | BaseException, float], None] | None = None,
    check_token: Callable[[Token], Awaitable[None]] | None = None,
) -> AsyncAlbertSession:
    """Return the HTTP session; a token wins over client credentials if both are given.

    Secrets are read again when Albert refuses the old ones (mounted secrets are rotated), and after a SIGHUP.

    Raises
    ------
    SettingsError
        As `tls_context` says.
    """
    settings = current.settings
    credentials = None
    given = settings.albert_client_id is not None and settings.albert_client_secret is not None
    if settings.credentials == "client credentials" and given:
        credentials = AlbertClientCredentials(
            id=current.secret("albert_client_id"), secret=current.secret("albert_client_secret")
        )
    limit = settings.syncd_max_requests_per_second
    return AsyncAlbertSession(
        base_url=settings.albert_base_url,
        token=current.secret("albert_token") if settings.credentials == "token" else None,
        auth_manager=credentials,
        timeout=settings.syncd_request_timeout,
        max_response_bytes=settings.syncd_max_response_bytes,
        max_connections=max_connections(settings),
        proxy=settings.syncd_proxy,
        verify=tls_context(settings),
        before_request=RateLimit(limit, clock) if limit else None,
        after_request=after_request,
        check_token=check_token,
    )
