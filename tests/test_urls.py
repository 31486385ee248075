"""What a host is, and which base URLs are taken: the settings and the client say the same."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from syncd.albert.urls import checked_base_url
from syncd.errors import SettingsError
from syncd.settings import load
from syncd.urls import is_host, origin, without_credentials

HOSTS = [
    "localhost", "a_b.example", "xn--n3h.com", "host.", "10.0.0.1", "::", "::1", "fe80::1%eth0", "a" * 63, "1.example",
]  # fmt: skip
NO_HOSTS = [
    "", "a b", "a..b", "ü..x", "☃.com", "a" * 64, ".".join(["a" * 63] * 5), "-a.com", "a-.com", ".", "1.2.3.4.5",
    "300.1.1.1", "2130706433", "[::1]", "::1%", "::g", "fe80::1%a b", "a\n", "a/b", "a:1", "ex%41mple.com",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_host_is_taken(host: str) -> None:
    assert is_host(host)
    assert load({"SYNCD_STATUS_HOST": host}).settings.syncd_status_host == host


@pytest.mark.parametrize("host", NO_HOSTS)
def test_text_that_is_not_a_host_is_refused(host: str) -> None:
    assert not is_host(host)


@pytest.mark.parametrize("host", [host for host in NO_HOSTS if host == host.strip() != ""])
def test_status_host_on_which_no_server_can_listen_is_a_problem_of_the_settings(host: str) -> None:
    with pytest.raises(SettingsError, match=r"SYNCD_STATUS_HOST=.* must be a host name or an IP address"):
        load({"SYNCD_STATUS_HOST": host})


@pytest.mark.parametrize(
    "url",
    [
        *(f"https://{host}" for host in NO_HOSTS if host not in {"[::1]", "a/b", "a:1"}),
        "https://[::1]x",
        "https://[::1", "https://[a]", "https://[1.2.3.4]",
        "https://::1", "https://host:", "https://host:65536", "https://host/%zz", "https://host/a{b}",
        "https://host/../x", "https://host/ü",
    ],
)  # fmt: skip
def test_base_url_that_the_client_refuses_is_a_problem_of_the_settings(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        checked_base_url(url)
    if url == url.strip():  # the settings remove surrounding white space
        with pytest.raises(SettingsError, match=r"ALBERT_BASE_URL=.*: must"):
            load({"ALBERT_BASE_URL": url})


@given(
    st.one_of(
        st.text(st.sampled_from("https:/.-_[]%@?#\\ 019aZü☃\n\0"), max_size=30).map("https://".__add__),
        st.from_regex(
            r"https?://(\[[0-9a-f:.]{0,9}\]|[a-z0-9_.-]{0,20})(:[0-9]{0,6})?(/[a-z%0-9./{]*)?", fullmatch=True
        ),
    )
)
@example("https://xn--zzzzzzz")
@example("HTTPS://HOST:443/Prefix/")
def test_what_the_settings_take_can_be_asked(url: str) -> None:
    try:
        taken = load({"ALBERT_BASE_URL": url}).settings.albert_base_url
    except SettingsError:
        return
    asked = URL(f"{checked_base_url(taken)}/api", encoded=True)
    assert asked.raw_host
    assert asked.raw_path.endswith("/api")
    assert asked.raw_host.encode("idna")  # as a resolver does


def test_base_url_is_compared_without_its_spelling() -> None:
    assert checked_base_url("HTTPS://Albert.Example:8443/Prefix/") == "https://albert.example:8443/Prefix"


@pytest.mark.parametrize(
    ("spelling", "normal"),
    [
        ("https://App.AlbertInvent.com", "https://app.albertinvent.com"),
        ("HTTPS://app.albertinvent.com/", "https://app.albertinvent.com"),
        ("https://app.albertinvent.com:443//", "https://app.albertinvent.com"),
        ("https://app.albertinvent.com.:0443", "https://app.albertinvent.com"),
        ("https://app.albertinvent.com:8443", "https://app.albertinvent.com:8443"),
        ("https://gateway.example/a%2fb/", "https://gateway.example/a%2Fb"),
        ("http://localhost:80", "http://localhost"),
        ("http://127.0.0.1:8900/", "http://127.0.0.1:8900"),
        ("http://[0:0:0:0:0:0:0:1]:8900", "http://[::1]:8900"),
    ],
)
def test_spellings_of_one_address_have_one_origin(spelling: str, normal: str) -> None:
    assert origin(spelling) == normal


def test_origins_differ_by_scheme_host_port_and_path() -> None:
    urls = ("http://localhost", "https://localhost", "https://localhost:8443", "https://localhost/A", "https://other")
    assert len({origin(url) for url in (*urls, "https://localhost/a")}) == 6


def test_origin_of_an_invalid_url_is_an_error_that_does_not_repeat_it() -> None:
    with pytest.raises(ValueError, match="must have no user") as caught:
        origin("https://user:secret@example.com")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("https://user:p%40ss@host/a", "https://host/a"),
        ("HTTP://user:@host:80", "HTTP://host:80"),
        ("postgresql+asyncpg://user@[::1]/d", "postgresql+asyncpg://[::1]/d"),
        ("https://host/a@b?to=http://user@other", "https://host/a@b?to=http://user@other"),
        ("https://user@host?to=http://user@other", "https://host?to=http://user@other"),
        ("https://host", "https://host"),
    ],
)
def test_credentials_are_removed_from_the_authority_of_a_url_alone(url: str, without: str) -> None:
    assert without_credentials(url) == without
