"""Whatever stands in the environment: settings or problems, no other error, and no secret in a problem."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.errors import SettingsError
from syncd.settings import FROM_FILES, Settings, load

CANARY = "cAnArY7f3e"
SHAPES = {
    "SYNCD_DATABASE_URL": "postgresql://u:{}@h/d",
    "SYNCD_PROXY": "http://u:{}@proxy:3128",
    "SYNCD_NOTIFY_URL": "https://hooks.example.com/{}",
}
NAMES = [name.upper() for name in Settings.model_fields if name not in {"syncd_env_file", "syncd_ca_file"}]
near = st.text(st.sampled_from("@/?#:%[]&=. \"'\u200b\u00a0aZ0"), max_size=6)


def problems(environment: dict[str, str]) -> list[str]:
    try:
        load(environment)
    except SettingsError as error:
        return error.problems
    return []


@given(st.dictionaries(st.sampled_from(NAMES), st.text(st.characters(exclude_characters="\0"), max_size=20)))
@example({"SYNCD_STATUS_PORT": "tcp://[::1:80"})
def test_any_values_give_settings_or_problems(environment: dict[str, str]) -> None:
    assert all(problem.startswith(("SYNCD_", "ALBERT_")) for problem in problems(environment))


@given(st.sampled_from([*FROM_FILES, "ALBERT_TOKN", "SYNCD_API_KEY"]), near, near)
def test_no_problem_contains_a_secret(name: str, before: str, after: str) -> None:
    value = SHAPES.get(name, "{}").format(f"{before}{CANARY}{after}")
    messages = problems({name: value})
    if name in FROM_FILES:  # also pasted into other settings
        messages += problems(
            {name: value, "SYNCD_LOG_LEVEL": value, "SYNCD_STATUS_HOST": f"x{value}", "SYNCD_TYPO": value}
        )
    assert CANARY not in "".join(messages)


@pytest.mark.parametrize("name", FROM_FILES)
def test_secret_that_was_given_as_the_name_of_its_file_is_not_shown(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({f"{name}_FILE": SHAPES.get(name, "{}").format(CANARY)})
    assert CANARY not in str(caught.value)
