"""The benchmarks are right about what they run: no timing here, only that every contender does the whole work."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import daemon, long_queue, measures, ours, plots, report, verify
from benchmarks.__main__ import STEPS
from benchmarks.contenders import CONTENDERS
from benchmarks.machine import ServerHandle, contend, serving
from benchmarks.results import against, alone, exponent
from benchmarks.server import COLUMNS, LISTING, Listing, session, source_id
from benchmarks.stores import PostgresStore, SqliteStore, Store, connect
from benchmarks.timer import WATCHED, server_seconds
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.store.pages import unpack
from tests.helpers.postgres_server import PostgresServer

PEERS = {"sdk-core", "dlt", "singer"}
"""Contenders with an environment of their own; each of their runs is verified by `benchmarks.compare`."""
MIRRORS = ("floor", "floor-stages", "same-rows", "syncd", "syncd-ahead", "syncd-stages")
ON_POSTGRES = ("floor-pg", "same-rows-pg", "syncd")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerHandle]:
    with serving() as handle:
        yield handle


def serve(server: ServerHandle, listing: Listing) -> Listing:
    server.set(**listing.__dict__)
    return listing


@pytest.mark.parametrize("name", MIRRORS)
def test_contender_mirrors_all_that_is_served(server: ServerHandle, tmp_path: Path, name: str) -> None:
    listing = serve(server, Listing(sessions=95, page=10))
    where = SqliteStore(tmp_path).empty("m")
    took = contend(name, server.url, where)
    assert verify.mirrored(where) == verify.served(listing)
    assert server.counts()["pages"] == 10
    assert took["cpu"] > 0
    assert took["rss"] > 0
    assert took["server"] == 0


@pytest.mark.parametrize("name", ON_POSTGRES)
def test_contender_mirrors_all_that_is_served_into_postgresql(
    server: ServerHandle, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert postgres.process is not None
    monkeypatch.setenv(WATCHED, str(postgres.process.pid))
    listing = serve(server, Listing(sessions=95, page=10))
    store = PostgresStore(postgres)
    where = store.empty("m")
    took = contend(name, server.url, where)
    assert verify.mirrored(where) == verify.served(listing)
    assert took["server"] >= 0
    assert server_seconds() > 0
    if name == "same-rows-pg":  # it is for the first mirror only
        return
    changed = serve(server, Listing(sessions=95, page=10, changed_from=90))
    copied = store.copy("m", "n")
    contend(name, server.url, copied)
    assert verify.mirrored(copied) == verify.served(changed)
    assert verify.mirrored(where) == verify.served(listing)


def test_floor_of_the_same_rows_writes_the_rows_that_syncd_writes(server: ServerHandle, store: Store) -> None:
    serve(server, Listing(sessions=95, page=10))
    held = []
    for name in (store.same_rows, "syncd"):
        where = store.empty(name)
        contend(name, server.url, where)
        with contextlib.closing(connect(where)) as db:
            columns = ", ".join((*COLUMNS, "version", "change", "created_date", "last_message_date", "seq", "key"))
            held.append([
                db.execute(f"SELECT {columns} FROM sessions ORDER BY id"),
                db.execute("SELECT source_session_id, state, session_id FROM source_sessions ORDER BY 1"),
                [(*row[:2], unpack(row[2])) for row in db.execute("SELECT number, versions, sessions FROM pages")],
            ])  # fmt: skip
    assert held[0] == held[1]


def test_reading_odd_pages_is_measured_against_a_plain_one(server: ServerHandle) -> None:
    took = contend("parse", server.url, "", times=1)
    assert min(took["plain"], took["one unknown field in each item"], took["one unreadable item"]) > 0


def test_fetch_reads_each_page_once(server: ServerHandle, tmp_path: Path) -> None:
    serve(server, Listing(sessions=95, page=10))
    contend("fetch", server.url, str(tmp_path / "none.db"))
    assert server.counts()["pages"] == 10


@pytest.mark.parametrize("name", ["bare-queue", "syncd-queue"])
def test_contender_looks_up_and_posts_each_create_once(server: ServerHandle, tmp_path: Path, name: str) -> None:
    serve(server, Listing())
    where = str(tmp_path / "q.db")
    contend(name, server.url, where, operations=20, concurrency=4)
    counts = server.counts()
    assert (counts["lookups"], counts["posts"]) == (20, 20)
    assert 1 <= counts["connections"] <= 4
    assert len(server.arrivals()) == 20
    if name == "syncd-queue":
        verify.queue(where, 20)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return SqliteStore(tmp_path)
    return PostgresStore(request.getfixturevalue("postgres"))


def test_only_changed_rows_are_written_and_reconciling_asks_for_nothing(server: ServerHandle, store: Store) -> None:
    where = store.empty("m")
    contend("syncd", serve_at(server, Listing(sessions=40, page=10)), where)
    writes = verify.Writes(where)
    contend("syncd", server.url, where)
    assert writes.count() == 0
    changed = serve(server, Listing(sessions=40, page=10, changed_from=39))
    contend("syncd", server.url, where)
    assert verify.mirrored(where) == verify.served(changed)
    assert writes.count() == 2  # the session, and its past version
    serve(server, Listing())
    assert contend("syncd-reconcile", server.url, where)["unanswered"] == 0
    assert not any(server.counts().values())


def test_queue_is_worked_on_either_database(server: ServerHandle, store: Store) -> None:
    serve(server, Listing())
    where = store.empty("q")
    contend("syncd-queue", server.url, where, operations=20, concurrency=4)
    verify.queue(where, 20)


def test_queue_is_worked_beside_blocked_operations_on_either_database(server: ServerHandle, store: Store) -> None:
    serve(server, Listing())
    where = store.empty("blocked")
    ours.block(server.url, where, 50)
    contend("syncd-queue", server.url, where, operations=20, concurrency=4)
    verify.blocked_queue(where, 20, 50)


@pytest.mark.slow
def test_long_queue_is_worked_to_its_end_during_passes(server: ServerHandle, store: Store) -> None:
    figures = {
        figure.key: figure for figure in long_queue.measure(server, store, 50, short=20, sessions=10, least_passes=0)
    }
    assert figures["long-rate"].value > 0
    with contextlib.closing(connect(store.at("long"))) as db:
        assert long_queue.succeeded(db) == 70
    assert server.counts()["posts"] == 70


def test_created_sessions_follow_in_the_listing_if_it_lists_them(server: ServerHandle, tmp_path: Path) -> None:
    serve(server, Listing(sessions=15, page=10, lists_created=1))
    for number in range(12):
        body = json.dumps({"name": "n", "sourceSessionId": source_id(100 + number)}).encode()
        urllib.request.urlopen(f"{server.url}{LISTING}", body, timeout=10).close()  # noqa: S310 - http on loopback
    where = SqliteStore(tmp_path).empty("m")
    contend("syncd", server.url, where)
    with contextlib.closing(connect(where)) as db:
        assert db.execute("SELECT count(*) FROM sessions") == [(27,)]
    assert server.counts()["pages"] == 3


def test_idle_database_is_told_from_one_that_is_written_to(server: ServerHandle, store: Store) -> None:
    where = store.empty("m")
    contend("syncd", serve_at(server, Listing(sessions=5, page=10)), where)
    with contextlib.closing(connect(where)) as db:
        before = daemon.written(where, db)
        assert daemon.written(where, db) == before
        with contextlib.closing(connect(where)) as other:
            other.execute("INSERT INTO operations (kind, source_session_id, name) VALUES ('create', ?, 'n')", ("s",))
        deadline = time.monotonic() + 20
        while daemon.written(where, db) == before:  # PostgreSQL tells a little later
            assert time.monotonic() < deadline


def serve_at(server: ServerHandle, listing: Listing) -> str:
    serve(server, listing)
    return server.url


def test_every_contender_is_tested_but_those_with_an_environment_of_their_own() -> None:
    tested = {*MIRRORS, "fetch", "parse", "bare-queue", "syncd-queue", "syncd-reconcile", *ON_POSTGRES}
    assert tested | PEERS == set(CONTENDERS)


def test_verification_tells_a_wrong_value_and_a_missing_row(tmp_path: Path) -> None:
    listing = Listing(sessions=3)
    where = str(tmp_path / "m.db")
    db = sqlite3.connect(where)
    db.execute(f"CREATE TABLE sessions ({', '.join(verify.COLUMNS)})")
    for number in range(3):
        wire = session(number)
        blocks = [wire[block][key] for block in ("Created", "Updated") for key in ("by", "byName", "at")]
        texts = [wire[key] for key in ("id", "name", "parentId", "sourceSessionId", "lastMessageAt", "status", "kind")]
        db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*texts, *blocks))
    db.commit()
    assert verify.mirrored(where) == verify.served(listing)
    db.execute("UPDATE sessions SET status = 'inactive' WHERE id = 'SES1'")
    db.commit()
    assert verify.mirrored(where) != verify.served(listing)
    db.execute("DELETE FROM sessions WHERE id = 'SES1'")
    db.commit()
    assert verify.mirrored(where)[0] == 2
    db.close()


def test_exponent_of_linear_growth_is_one_and_of_a_square_two() -> None:
    assert exponent([(10, 3.0), (100, 30.0), (1000, 300.0)]) == pytest.approx(1)
    assert exponent([(10, 100.0), (100, 10_000.0)]) == pytest.approx(2)


def test_a_ratio_is_the_median_of_the_rounds_and_decides() -> None:
    figure = against("k", "t", "s", [2.0, 9.0, 4.0], [2.0, 3.0, 2.0], sense="≤", target=2.0)
    assert (figure.ratio, figure.low, figure.high, figure.met) == (2.0, 1.0, 3.0, True)
    assert not against("k", "t", "s", [2.1], [1.0], sense="≤", target=2.0).met
    assert not against("k", "t", "s", [1.9], [1.0], sense="≥", target=2.0).met
    assert not alone("k", "t", "rows", [1], sense="=", target=0).met


def test_generated_part_replaces_what_stood_between_its_markers_and_nothing_else() -> None:
    text = "a\n<!-- table: generated -->\nold\n<!-- /table -->\nz"
    once = report.replace(text, "table", "new")
    assert once == "a\n<!-- table: generated -->\n\nnew\n\n<!-- /table -->\nz"
    assert report.replace(once, "table", "new") == once
    with pytest.raises(ValueError, match="no place"):
        report.replace(text, "other", "new")


def test_the_docs_have_a_place_for_each_generated_part() -> None:
    text = report.DOCS.read_text()
    for name in ("machine", *report.STORES, "profiles", "peers", "analysts", "startup", "long-queue"):
        assert report.replace(text, name, "x") != text


def test_plots_are_well_formed_for_one_point_and_for_many() -> None:
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - one test's

    drawn = (
        plots.lines("a & b", {"x < y": [(10, 0.5)], "z": [(1e4, 1.0), (1e6, 90.0)]}, "n", "s"),
        plots.bars("c", {"one": {"fetch": 1.0, "parse": 0.5}, "two": {"fetch": 2.0, "parse": 0.0}}, "s"),
        plots.histogram("d", [1.0, 2.0, 2.0, 100.0], "ms"),
    )
    for svg in drawn:
        assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 - our own text


def test_every_step_says_what_it_measures() -> None:
    assert all(step.__doc__ for step in STEPS.values())
    assert measures.FULL.many == 1_000_000
