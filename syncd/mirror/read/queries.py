"""A question of analysts and its SQL, for both databases. `questions` has the texts.

Most questions have one text for both databases: dates are text, and moments are compared with a text in the form of the
mirror. SQLite and PostgreSQL compare texts alike. A week, a span of minutes, and a weekday or an hour need two texts. A
template contains `{week(column)}`, `{minutes(from, to)}`, `{weekday(column)}` or `{hour(column)}` there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Dialect = Literal["sqlite", "postgresql"]

_FUNCTIONS = {
    "sqlite": {
        "week": "date({0}, 'weekday 0', '-6 days')",
        "minutes": "(julianday({1}) - julianday({0})) * 1440",
        "weekday": "CAST(strftime('%w', {0}) AS INTEGER)",
        "hour": "CAST(strftime('%H', {0}) AS INTEGER)",
    },
    "postgresql": {
        "week": "to_char(date_trunc('week', CAST({0} AS date)), 'YYYY-MM-DD')",
        "minutes": "CAST(extract(epoch FROM {1} - {0}) / 60 AS double precision)",
        "weekday": "CAST(extract(dow FROM {0} AT TIME ZONE 'UTC') AS integer)",
        "hour": "CAST(extract(hour FROM {0} AT TIME ZONE 'UTC') AS integer)",
    },
}
_CALL = re.compile(r"\{(week|minutes|weekday|hour)\(([^)]*)\)\}")

EXAMPLES = {
    "since": "'2026-11-16T00:00:00.000000Z'",
    "session_id": "'SES1'",
    "seq": "0",
    "text": "'viscosity'",
}
"""The parameters of questions, and the values that `docs/queries.md` shows, as SQL."""


@dataclass(frozen=True)
class Query:
    """A question and the SQL that answers it.

    Parameters
    ----------
    name : str
        The name in `syncd browse`, and of the file in `contrib/metabase`.
    question : str
        The question, for a heading.
    about : str
        What the answer counts, and its limits.
    template : str
        The SQL, with parameters such as `{since}`.
    chart : tuple[str, str] | None
        The columns that label and measure the bars of its chart.
    """

    name: str
    question: str
    about: str
    template: str
    chart: tuple[str, str] | None = None

    @property
    def portable(self) -> bool:
        """Whether both databases take the same text."""
        return self.sql("sqlite") == self.sql("postgresql")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the names of its parameters, of `EXAMPLES`."""
        return tuple(name for name in EXAMPLES if f"{{{name}}}" in self.template)

    def sql(self, dialect: Dialect, **values: str) -> str:
        """Return the text for a database.

        Parameters
        ----------
        **values : str
            SQL of parameters, a literal or a placeholder; `EXAMPLES` otherwise.
        """
        functions = _FUNCTIONS[dialect]
        text = _CALL.sub(lambda call: functions[call[1]].format(*call[2].split(", ")), self.template)
        for name, value in (EXAMPLES | values).items():
            text = text.replace(f"{{{name}}}", value)
        return text.strip()
