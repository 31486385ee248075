"""The texts of problems: the name, the value unless it may be a secret, the origin, the unit and an example."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncd.settings.display import without_secrets
from syncd.settings.env_files import Given
from syncd.settings.fields import FROM_FILES, Settings
from syncd.settings.names import may_hold_a_secret, suggestion
from syncd.visible_text import quoted

SECRETS = frozenset(FROM_FILES)
"""The settings whose values are secrets, or can contain one."""
FILE_NAMES = frozenset(f"{name}_FILE" for name in FROM_FILES)
KNOWN = {name.upper() for name in Settings.model_fields} | FILE_NAMES
"""Every name that is a setting."""
_WEB_TOKEN = "eyJ"  # noqa: S105 - the start of tokens
"""The begin of each JSON Web Token, and so of most tokens of Albert: a value that contains it is not shown."""
_SHORTEST_SECRET = 4
"""Characters. A shorter secret occurs in values by chance, and they would be hidden without a reason."""


@dataclass(frozen=True)
class Texts:
    """Builds the texts of problems.

    Parameters
    ----------
    secrets : Collection[str]
        Texts that no message may contain, such as a token that was pasted into the wrong setting.
    """

    secrets: Collection[str]

    def given(self, variable: Given) -> str:
        """Return the name, the value unless it may be a secret, and the origin."""
        if variable.name in FILE_NAMES:
            path = self._file(variable.value)
            return f"{variable.name}{path} ({variable.origin}{'' if path else '; hidden, it may be the secret itself'})"
        return f"{variable.name}{self._value(variable.value, hidden=variable.name in SECRETS)} ({variable.origin})"

    def unknown(self, variable: Given) -> str:
        """Report a name that is not a setting."""
        meant = suggestion(variable.name, KNOWN)
        hidden = meant in SECRETS | FILE_NAMES if meant is not None else may_hold_a_secret(variable.name)
        start = (
            f"{variable.name}{self._value(variable.value, hidden=hidden)} ({variable.origin}) is not a setting of syncd"
        )
        if meant is None:
            return f"{start}; to see all settings, run: syncd config"
        field = Settings.model_fields.get(meant.lower())
        return f"{start}; did you mean {meant}{f' ({expected(field)})' if field is not None else ''}?"

    def invalid(self, variable: Given, error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
        """Report a value that its setting refuses."""
        field = Settings.model_fields[variable.name.lower()]
        cause = error.get("ctx", {}).get("error")
        if cause is not None:
            return self.refused(variable, cause)
        text, most = expected(field), error.get("ctx", {}).get("le")
        unnamed = "" if most is None or f"{most:.0f}" in text else f", and at most {most:.0f}"
        return f"{self.given(variable)}: must be {text}{unnamed}"

    def refused(self, variable: Given, cause: Exception) -> str:
        """Report a value with the cause for which its rule refuses it."""
        examples = Settings.model_fields[variable.name.lower()].examples or []
        return f"{self.given(variable)}: {cause}; example: {' or '.join(examples)}"

    def _value(self, value: str, *, hidden: bool) -> str:
        if (
            hidden
            or _WEB_TOKEN in value
            or any(secret in value for secret in self.secrets if len(secret) >= _SHORTEST_SECRET)
        ):
            return ""
        return f"={quoted(without_secrets(value))}"

    def _file(self, path: str) -> str:
        """Return the path of a secret's file, unless it may be the secret itself, given in the wrong setting."""
        folder = Path(path).parent
        is_path = path.startswith(("/", ".", "~")) or (folder != Path() and folder.is_dir())
        return self._value(path, hidden=not is_path)


def expected(field: Any) -> str:  # noqa: ANN401 - pydantic's FieldInfo
    """Return what a setting expects, with the unit and examples."""
    return f"{field.json_schema_extra['expected']}, such as {' or '.join(field.examples)}"


def missing_credentials(given: set[str], others: Collection[str], *, needed: bool) -> str | None:
    """Report missing credentials; a value or a file that has a problem of its own counts as given.

    Parameters
    ----------
    given : set[str]
        The names of settings that are set.
    others : Collection[str]
        Names beginning with `ALBERT_` that are set and are not settings.
    needed : bool
        Whether the command needs credentials. Half of a pair is a problem in any case.
    """
    token, client_id, client_secret = (
        bool({name, f"{name}_FILE"} & given) for name in ("ALBERT_TOKEN", "ALBERT_CLIENT_ID", "ALBERT_CLIENT_SECRET")
    )
    if token or (client_id and client_secret):
        return None
    if client_id or client_secret:
        present, missing = ("ID", "SECRET") if client_id else ("SECRET", "ID")
        return (
            f"ALBERT_CLIENT_{present} is set and ALBERT_CLIENT_{missing} is not (nor ALBERT_CLIENT_{missing}_FILE); "
            "client credentials need both"
        )
    if not needed:
        return None
    unused = f". Set, but not settings of syncd: {', '.join(sorted(others))}" if others else ""
    (example,) = Settings.model_fields["albert_token"].examples or [""]
    return (
        "no credentials: set ALBERT_TOKEN, or ALBERT_CLIENT_ID and ALBERT_CLIENT_SECRET, in the environment or an "
        f"environment file, or name a file that holds one, such as {example}{unused}"
    )
