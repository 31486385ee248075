"""Names: which unknown ones are errors, and which variables of Kubernetes are ignored."""

from __future__ import annotations

import re

import pytest

from syncd.settings import load
from tests.settings.helpers import problems


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ALBERT_BASEURL", "ALBERT_BASE_URL"), ("ALBERT_BASE_URI", "ALBERT_BASE_URL"),
        ("ALBERT_URL", "ALBERT_BASE_URL"), ("ALBERT_API_URL", "ALBERT_BASE_URL"),
        ("ALBERT_TOKN", "ALBERT_TOKEN"), ("ALBERT_TOEKN", "ALBERT_TOKEN"),
        ("ALBERT_API_TOKEN", "ALBERT_TOKEN"), ("ALBERT_TOKENFILE", "ALBERT_TOKEN_FILE"),
        ("ALBERT_CLIENTID", "ALBERT_CLIENT_ID"), ("ALBERT_SECRET", "ALBERT_CLIENT_SECRET"),
        ("ALBERT_CLIENT_SECRETS", "ALBERT_CLIENT_SECRET"), ("albert_token", "ALBERT_TOKEN"),
        ("ALBERT_BASE", "ALBERT_BASE_URL"), ("ALBERT_BASE_URL_FILE", "ALBERT_BASE_URL"),
        ("ALBERT_URL_FILE", "ALBERT_BASE_URL"), ("ALBERT_BASEURL_FILE", "ALBERT_BASE_URL"),
        ("ALBERT_TOKEN_PATH", "ALBERT_TOKEN"), ("ALBERT_TOKEN_VALUE", "ALBERT_TOKEN"),
        ("ALBERT_AUTH_TOKEN", "ALBERT_TOKEN"), ("albert_auth_token_file", "ALBERT_TOKEN_FILE"),
        ("syncd_pass_interval", "SYNCD_PASS_INTERVAL"), ("SYNCD_PASS_INTERVALL", "SYNCD_PASS_INTERVAL"),
        ("SYNCD_PASSINTERVAL", "SYNCD_PASS_INTERVAL"), ("SYNCD_PORT", "SYNCD_STATUS_PORT"),
        ("SYNCD_CA", "SYNCD_CA_FILE"), ("SYNCD_GRACE", None), ("SYNCD_", None),
    ],
)  # fmt: skip
def test_name_that_resembles_a_setting_is_a_problem_that_names_the_setting(name: str, meant: str | None) -> None:
    (problem,) = problems({name: "1"})
    assert problem.startswith(name)
    assert "is not a setting of syncd" in problem
    assert re.search(rf"did you mean {meant}\b" if meant is not None else "syncd config", problem)


@pytest.mark.parametrize(
    "name",
    [
        "ALBERT_EINSTEIN", "ALBERT_TENANT", "ALBERT_HOME", "ALBERT_API_KEY", "ALBERT_BASE_DIR", "albert", "syncd_home",
        "ALBERT_BASE_PATH", "ALBERT_FILE", "ALBERT_PATH", "ALBERT_VALUE", "ALBERT_CA_FILE", "ALBERT_KEY_PATH",
        "ALBERT_AUTH", "ALBERT_AUTH_FILE",
    ],
)  # fmt: skip
def test_name_that_resembles_no_setting_is_left_to_other_programs(name: str) -> None:
    load({name: "1"})


KUBERNETES = {
    "SYNCD_SERVICE_HOST": "10.43.7.19", "SYNCD_SERVICE_PORT": "8080", "SYNCD_SERVICE_PORT_HTTP": "8080",
    "SYNCD_PORT": "tcp://10.43.7.19:8080", "SYNCD_PORT_8080_TCP": "tcp://10.43.7.19:8080",
    "SYNCD_PORT_8080_TCP_PROTO": "tcp", "SYNCD_PORT_8080_TCP_PORT": "8080", "SYNCD_PORT_8080_TCP_ADDR": "10.43.7.19",
    "SYNCD_STATUS_PORT": "tcp://10.0.0.1:8080", "SYNCD_STATUS_SERVICE_HOST": "10.0.0.1",
    "SYNCD_POSTGRES_PORT_5432_TCP": "tcp://[fd00::7]:5432", "SYNCD_POSTGRES_SERVICE_HOST": "fd00::7",
    "SYNCD_POSTGRES_PORT_53_UDP": "udp://10.0.0.2:53", "SYNCD_POSTGRES_PORT_53_UDP_PROTO": "udp",
    "SYNCD_POSTGRES_PORT_9_SCTP": "sctp://10.0.0.2:9", "SYNCD_V2_SERVICE_PORT_METRICS_2": "9",
    "ALBERT_TOKEN_PORT": "tcp://10.0.0.3:80", "ALBERT_TOKENS_SERVICE_HOST": "10.0.0.3",
}  # fmt: skip


def test_variables_of_kubernetes_services_are_ignored() -> None:
    loaded = load(KUBERNETES)
    assert loaded.settings == load({}).settings
    assert loaded.origins["syncd_status_port"] == "default"


def test_status_port_that_is_a_number_is_the_setting() -> None:
    assert load({**KUBERNETES, "SYNCD_STATUS_PORT": "9000"}).settings.syncd_status_port == 9000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SYNCD_PORT", "8080"), ("SYNCD_SERVICE_HOST", "example.com"), ("SYNCD_SERVICE_PORT", "http"),
        ("SYNCD_SERVICE_PORT", "70000"), ("SYNCD_PORT", "http://10.0.0.1:80"), ("SYNCD_PORT", "tcp://host:80"),
        ("SYNCD_PORT", "tcp://10.0.0.1:80/x"), ("SYNCD_PORT_80_TCP_PROTO", "icmp"), ("SYNCD_PORT_80_TCP_ADDR", "a"),
        ("SYNCD_PORT_80_TCP_PORT", "0"), ("SYNCD_HOST", "10.0.0.1"), ("SYNCD_STATUS_PORT", "tcp://10.0.0.1"),
        ("SYNCD_LEASE", "tcp://10.0.0.1:80"),
    ],
)  # fmt: skip
def test_value_in_another_form_than_that_of_kubernetes_is_a_problem(name: str, value: str) -> None:
    assert len(problems({name: value})) == 1
