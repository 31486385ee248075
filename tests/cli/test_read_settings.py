"""Commands read their settings at the start, and `syncd run` again after a SIGHUP."""

from __future__ import annotations

import click
from click.testing import CliRunner

from syncd.cli.common import READ_SETTINGS, takes_settings
from syncd.settings import Loaded
from tests.settings.helpers import SECRET, pipe


@click.command()
@takes_settings(credentials=True)
@click.pass_context
def twice(context: click.Context, loaded: Loaded) -> None:
    again: Loaded = context.meta[READ_SETTINGS]()
    for settings in (loaded.settings, again.settings):
        assert settings.albert_token is not None
        click.echo(settings.albert_token.get_secret_value())


def test_settings_that_are_read_again_keep_the_secret_of_a_pipe() -> None:
    with pipe(SECRET) as token:
        done = CliRunner().invoke(twice, env={"ALBERT_TOKEN_FILE": str(token), "ALBERT_TOKEN": ""})
    assert (done.exit_code, done.output) == (0, f"{SECRET}\n{SECRET}\n")
