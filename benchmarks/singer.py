"""A Singer tap and target for the peers: `python -m benchmarks.singer tap URL | ... target FILE`.

The target is the SDK's own SQL target with an upsert for SQLite, like the target-sqlite of its
authors. The last line of standard error of each has its measurements.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa
from singer_sdk import Tap
from singer_sdk.pagination import JSONPathPaginator
from singer_sdk.sql import SQLConnector, SQLSink, SQLTarget
from singer_sdk.streams import RESTStream
from sqlalchemy.dialects.sqlite import insert

from benchmarks.machine import TOKEN
from benchmarks.peers import row
from benchmarks.server import COLUMNS, LISTING
from benchmarks.timer import Timer


class Sessions(RESTStream[str]):
    """The listing as a stream."""

    name = "sessions"
    path = LISTING
    primary_keys = ("id",)
    records_jsonpath = "$.Items[*]"
    schema = {  # noqa: RUF012 - as the SDK wants it
        "type": "object",
        "properties": {name: {"type": ["string"] if name == "id" else ["string", "null"]} for name in COLUMNS},
    }

    @property
    def url_base(self) -> str:
        """Return where the server is."""
        return str(self.config["url"])

    @property
    def http_headers(self) -> dict[str, str]:
        """Return the headers of a request."""
        return {"Authorization": f"Bearer {TOKEN}"}

    def get_new_paginator(self) -> JSONPathPaginator:
        """Page by `lastKey`."""
        return JSONPathPaginator("$.lastKey")

    def get_url_params(self, _context: object, next_page_token: str | None) -> dict[str, Any]:
        """Return the query of a page."""
        return {"startKey": next_page_token} if next_page_token else {}

    def parse_response(self, response: requests.Response) -> Iterable[dict[str, Any]]:
        """Read a page's items."""
        yield from response.json()["Items"]

    def post_process(self, item: dict[str, Any], _context: object = None) -> dict[str, Any]:
        """Make an item flat."""
        return row(item)


class SessionsTap(Tap):
    """The tap."""

    name = "tap-bench"
    config_jsonschema = {"type": "object", "properties": {"url": {"type": "string"}}}  # noqa: RUF012

    def discover_streams(self) -> list[Sessions]:
        """Return its one stream."""
        return [Sessions(self)]


class Upsert(SQLSink[SQLConnector]):
    """The sink with SQLite's upsert."""

    connector_class = SQLConnector

    def generate_insert_statement(self, full_table_name: Any, schema: Mapping[str, Any]) -> sa.Insert:  # noqa: ANN401
        """Write an upsert on the key."""
        columns = [sa.Column(name, sa.String) for name in self.conform_schema(dict(schema))["properties"]]
        new = insert(sa.Table(str(full_table_name), sa.MetaData(), *columns))
        values = {column.name: new.excluded[column.name] for column in columns if column.name != "id"}
        return new.on_conflict_do_update(index_elements=["id"], set_=values)


class SqliteTarget(SQLTarget):
    """The target."""

    name = "target-bench"
    default_sink_class = Upsert
    config_jsonschema = {  # noqa: RUF012
        "type": "object",
        "properties": {"sqlalchemy_url": {"type": "string"}},
    }


def main() -> None:
    """Run the tap or the target."""
    logging.disable(logging.CRITICAL)
    role, where = sys.argv[1:]
    timer = Timer()
    timer.start()
    if role == "tap":
        SessionsTap(config={"url": where}).sync_all()
    else:
        db = sa.create_engine(f"sqlite:///{Path(where)}")
        with db.begin() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            columns = ", ".join(f"{name} VARCHAR" for name in COLUMNS if name != "id")
            connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS sessions (id VARCHAR PRIMARY KEY, {columns})")
        db.dispose()
        SqliteTarget(config={"sqlalchemy_url": f"sqlite:///{where}"}).listen(sys.stdin)
    sys.stdout.flush()
    timer.stop()
    print(json.dumps(timer.result()), file=sys.stderr)


if __name__ == "__main__":
    main()
