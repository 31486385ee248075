"""Loading: the environment and the files are combined, and every problem is reported at once.

The order, from the lowest to the highest priority: defaults, the files of `SYNCD_ENV_FILE`, the files of `--env-file`,
the environment. `NAME_FILE` has the priority of the place where it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pydantic
from pydantic import BaseModel

from syncd.errors import SettingsError
from syncd.settings.display import shown
from syncd.settings.env_files import Given, read_env_file
from syncd.settings.fields import FROM_FILES, Settings
from syncd.settings.kubernetes import is_service_variable
from syncd.settings.names import is_ours, is_unknown
from syncd.settings.problems import KNOWN, SECRETS, Texts, missing_credentials
from syncd.settings.secret_files import UnreadableFileError, read_secret
from syncd.settings.values import stripped, text_problem

ENVIRONMENT = "environment"
_ENV_FILE = "SYNCD_ENV_FILE"

_Values = dict[str, Given]


class Loaded(BaseModel):
    """Settings, and the origin of each.

    An origin is `default`, `environment`, the place in a file such as `syncd.env:3`, or one of the last two and the
    file that holds the value, such as `environment: ALBERT_TOKEN_FILE=/run/secrets/token`.
    """

    settings: Settings
    origins: dict[str, str]

    def shown(self) -> dict[str, str | float | bool | None]:
        """Return every setting by its name in the environment, without secrets."""
        return {name.upper(): shown(self.settings, name) for name in Settings.model_fields}


def load(
    environment: Mapping[str, str],
    files: Sequence[Path] = (),
    *,
    credentials: bool = False,
    pipes: dict[Path, str] | None = None,
) -> Loaded:
    """Read the settings.

    Parameters
    ----------
    environment : Mapping[str, str]
        Such as `os.environ`; an empty value counts as not set.
    files : Sequence[Path]
        Environment files in addition to those of `SYNCD_ENV_FILE`; a later file overrides an earlier one, and the
        environment overrides all files.
    credentials : bool
        Whether the command sends requests to Albert. Missing credentials are a problem then.
    pipes : dict[Path, str] | None
        The texts of pipes that an earlier call has read, and those that this call reads: a pipe can be read only once.

    Raises
    ------
    SettingsError
        With every problem.
    """
    problems: list[str] = []
    pipes = {} if pipes is None else pipes
    given = _given(environment, files, problems, pipes)
    values = {name: variable for name, variable in given.items() if name in KNOWN}
    others = {name: variable for name, variable in given.items() if name not in KNOWN}
    unknown = [others[name] for name in sorted(others) if is_unknown(name, KNOWN)]
    unused = [name for name in others if name.startswith("ALBERT_") and not is_unknown(name, KNOWN)]
    missing = missing_credentials(set(values), unused, needed=credentials)
    files_of, unread = _read_secret_files(values, pipes)
    texts = Texts([variable.value for name, variable in values.items() if name in SECRETS])
    problems += [texts.unknown(variable) for variable in unknown]
    problems += [f"{texts.given(variable)}: {problem}" for variable, problem in unread]
    problems += _refuse_text(values, texts)
    settings = _validated(values, texts, problems)
    problems += [missing] if missing is not None else []
    if problems or settings is None:
        raise SettingsError(problems)
    settings._files.update(files_of)  # noqa: SLF001 - not a setting, so not a field
    origins = {name.lower(): variable.origin for name, variable in values.items()}
    return Loaded(settings=settings, origins={name: origins.get(name, "default") for name in Settings.model_fields})


def _given(
    environment: Mapping[str, str], files: Sequence[Path], problems: list[str], pipes: dict[Path, str]
) -> _Values:
    """Return the values of all places by name; those of a place with a higher priority replace the others.

    A `NAME_FILE` also replaces a `NAME` of lower priority, and the other way round.
    """
    ours = [Given(name, value, ENVIRONMENT) for name, value in environment.items() if is_ours(name)]
    named = [Path(name) for name in stripped(environment.get(_ENV_FILE, "")).split(":") if name]
    layers = [_from_file(file, _ENV_FILE, problems, pipes) for file in named]
    layers += [_from_file(file, "--env-file", problems, pipes) for file in files]
    values: _Values = {}
    for layer in (*layers, ours):
        present = {variable.name: variable for variable in _relevant(layer)}
        for name in FROM_FILES:
            here, file = present.get(name), present.get(f"{name}_FILE")
            if here is not None and file is not None:
                origins = " and ".join(dict.fromkeys((here.origin, file.origin)))
                problems.append(f"{name} and {name}_FILE are both set ({origins}); remove one of them")
            elif here is not None:
                values.pop(f"{name}_FILE", None)
            elif file is not None:
                values.pop(name, None)
        values |= present
    return values


def _from_file(file: Path, named_by: str, problems: list[str], pipes: dict[Path, str]) -> list[Given]:
    variables = []
    for variable in read_env_file(file, named_by, problems, pipes):
        if variable.name == _ENV_FILE and stripped(variable.value):
            problems.append(
                f"{_ENV_FILE} ({variable.origin}) has an effect in the environment only; "
                "name the files there, or with --env-file"
            )
        elif is_ours(variable.name):
            variables.append(variable)
    return variables


def _relevant(layer: Iterable[Given]) -> Iterable[Given]:
    """Yield the values without surrounding white space, without empty ones and without those of Kubernetes."""
    for variable in layer:
        value = stripped(variable.value)
        if value and not is_service_variable(variable.name, value):
            yield Given(variable.name, value, variable.origin)


def _read_secret_files(values: _Values, pipes: dict[Path, str]) -> tuple[dict[str, Path], list[tuple[Given, str]]]:
    """Put the content of `NAME_FILE` in the place of `NAME`.

    Returns
    -------
    tuple[dict[str, Path], list[tuple[Given, str]]]
        The regular files by field, and the names that cannot be used, each with the reason.
    """
    files: dict[str, Path] = {}
    unread: list[tuple[Given, str]] = []
    for name in FROM_FILES:
        variable = values.pop(f"{name}_FILE", None)
        if variable is None or name in values:
            continue
        file = Path(variable.value)
        try:
            content = read_secret(file, pipes)
        except UnreadableFileError as error:
            unread.append((variable, f"the file cannot be read: {error}"))
            continue
        problem = text_problem(content) if content else "is empty"
        if problem is not None:
            unread.append((variable, f"the content of the file {problem}" if content else "the file is empty"))
            continue
        values[name] = Given(name, content, f"{variable.origin}: {name}_FILE={variable.value}")
        if file not in pipes:
            files[name.lower()] = file
    return files, unread


def _refuse_text(values: _Values, texts: Texts) -> list[str]:
    """Remove values with invisible characters or quotation marks; return the problems."""
    problems = {
        name: problem for name, variable in values.items() if (problem := text_problem(variable.value)) is not None
    }
    return [f"{texts.given(values.pop(name))}: {problem}" for name, problem in problems.items()]


def _validated(values: _Values, texts: Texts, problems: list[str]) -> Settings | None:
    """Return the settings, or None after appending what is wrong with them."""
    ca_file = values.get("SYNCD_CA_FILE")
    if ca_file is not None:
        from syncd.tls import check_ca_file  # noqa: PLC0415 - ssl takes 20 ms to import, and few need it

        try:
            check_ca_file(ca_file.value)
        except ValueError as error:
            problems.append(texts.refused(ca_file, error))
    try:
        return Settings.model_validate(
            {name.lower(): variable.value for name, variable in values.items() if name.lower() in Settings.model_fields}
        )
    except pydantic.ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        problems += [texts.invalid(values[str(detail["loc"][0]).upper()], detail) for detail in details]
        return None
