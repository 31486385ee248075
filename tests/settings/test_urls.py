"""The URLs among the settings: of Albert, of a proxy and of a receiver of notifications; and the file of a CA."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.albert.urls import checked_base_url
from syncd.settings import load
from tests.settings.helpers import SECRET, env_file, pipe, problems


@pytest.mark.parametrize(
    "url",
    [
        "https://app.albertinvent.com", "https://app.albertinvent.com/", "https://host:8443/prefix", "https://[::1]:9",
        "http://localhost:8900", "http://127.0.0.1", "http://127.9.9.9:1", "http://[::1]:8900", "HTTPS://HOST",
    ],
)  # fmt: skip
def test_base_url_that_is_taken_is_one_that_the_client_takes(url: str) -> None:
    assert checked_base_url(load({"ALBERT_BASE_URL": url}).settings.albert_base_url)


@pytest.mark.parametrize(
    "url",
    [
        "app.albertinvent.com", "ftp://host", "https://", "https://host:99999", "https://host:port", "https://[::1",
        "https://host:0", "http://example.com", "http://localhost.example.com", "http://127.0.0.1.example.com",
        "http://2130706433", "http://0.0.0.0", "https://user@host", "https://@host", "https://host?", "https://host#",
        "https://ho st", "https://host\\path", "https://host\u0000", "http://127.0.0.1@example.com",
    ],
)  # fmt: skip
def test_base_url_that_a_secret_must_not_go_to_is_refused(url: str) -> None:
    assert len(problems({"ALBERT_BASE_URL": url})) == 1


def test_password_is_hidden_in_what_is_shown_of_a_url() -> None:
    loaded = load({
        "ALBERT_TOKEN": SECRET, "SYNCD_DATABASE_URL": f"postgresql://u:{SECRET}@h:5432/d",
        "SYNCD_PROXY": f"http://u:{SECRET}@proxy:3128", "SYNCD_NOTIFY_URL": f"https://u:p@hooks.example.com/{SECRET}",
    })  # fmt: skip
    shown = loaded.shown()
    assert shown["ALBERT_TOKEN"] == "********"
    assert shown["SYNCD_DATABASE_URL"] == "postgresql+asyncpg://u:***@h:5432/d"
    assert shown["SYNCD_PROXY"] == "http://u:***@proxy:3128"
    assert shown["SYNCD_NOTIFY_URL"] == "https://hooks.example.com/********"
    assert SECRET not in repr(loaded)


@pytest.mark.parametrize(
    "url", ["http://proxy:3128", "https://proxy", "http://u:p%40ss@10.0.0.1:8080/", "HTTP://[::1]:1"]
)
def test_proxy_is_accepted(url: str) -> None:
    proxy = load({"SYNCD_PROXY": url}).settings.syncd_proxy
    assert proxy is not None
    assert proxy.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("proxy:3128", "begin with http"), ("socks5://proxy:1080", "SOCKS"), ("http://", "host name"),
        ("http://proxy:0", "port"), ("http://pro xy:3128", "host name"), ("http://proxy:3128/path", "end after"),
        ("http://proxy?x", "end after"), ("http://u:a@b@proxy:1", "%40"), ("http://u:a/b@proxy:1", "%2F"),
        ("http://u:a#b@proxy:1", "%23"), ("http://u:a?b@proxy:1", "%3F"), ("http://u:a%b@proxy:1", "%25"),
    ],
)  # fmt: skip
def test_proxy_that_cannot_be_used_is_a_problem_with_the_reason(url: str, reason: str) -> None:
    (problem,) = problems({"SYNCD_PROXY": url})
    assert problem.startswith("SYNCD_PROXY (environment): ")
    assert reason in problem
    assert url.removeprefix("http://") not in problem or url == "http://"


@pytest.mark.parametrize("url", ["https://hooks.example.com/T0/B0?x=1", "http://10.0.0.1:9093/api", "https://u:p@h/"])
def test_notification_url_is_accepted(url: str) -> None:
    assert load({"SYNCD_NOTIFY_URL": url}).settings.syncd_notify_url is not None


@pytest.mark.parametrize("url", ["hooks.example.com", "ftp://h/x", "https:///x", "https://h/#x", "https://h/\u00fc"])
def test_notification_url_that_cannot_be_used_is_a_problem(url: str) -> None:
    assert len(problems({"SYNCD_NOTIFY_URL": url})) == 1


def test_ca_file_without_a_certificate_is_a_problem(tmp_path: Path) -> None:
    text = env_file(tmp_path, "no certificate", "ca.pem")
    der = tmp_path / "der"
    der.write_bytes(b"0\x82\x03\x05")
    for file, reason in ((text, "PEM"), (der, "PEM"), (tmp_path, "is a folder"), (tmp_path / "none", "No such file")):
        (problem,) = problems({"SYNCD_CA_FILE": str(file)})
        assert problem.startswith(f"SYNCD_CA_FILE='{file}' (environment): the CA file ")
        assert reason in problem
        assert problem.endswith("; example: /etc/ssl/certs/company-ca.pem")
    with pipe("-----BEGIN CERTIFICATE-----") as file:
        (problem,) = problems({"SYNCD_CA_FILE": str(file)})
        assert "the CA file is not a regular file" in problem
