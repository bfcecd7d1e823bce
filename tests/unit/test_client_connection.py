"""Addresses, keys and switches: what is taken, and what is refused in which words."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat.connection import (
    Connection,
    check_timeout,
    is_loopback,
    parse_address,
    read_environment,
)
from llavachat.errors import ConfigurationError


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("localhost", "localhost:50051"),
        (" gpu.example ", "gpu.example:50051"),
        ("gpu.example:443", "gpu.example:443"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("::1", "[::1]:50051"),
        ("[::1]", "[::1]:50051"),
        ("[::1]:7", "[::1]:7"),
        ("unix:/run/llavachat.sock", "unix:/run/llavachat.sock"),
    ],
)
def test_addresses_are_completed(address, expected):
    """A port that is not named is 50051."""
    assert expected == parse_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "  ",
        ":50051",
        "host:",
        "host:0",
        "host:65536",
        "host:" + "1" * 5000,
        "host:http",
        "[::1",
        "[::1]x",
        "https://host",
        "host/path",
        "two words",
        "host:٣",
        "host\udce9",
        "unix:/\udce9",
    ],
)
def test_wrong_addresses_are_refused(address):
    """What can not be an address is refused before anything is opened."""
    with pytest.raises(ConfigurationError):
        parse_address(address)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_an_address_or_refused(text):
    """No text makes the parser fail in any other way, and completing twice changes nothing."""
    try:
        address = parse_address(text)
    except ConfigurationError:
        return
    assert address == parse_address(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("localhost:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("unix:/x", True),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
        ("[fe80::1]:1", False),
    ],
)
def test_loopback_is_known(address, expected):
    """Only this very machine counts."""
    assert expected == is_loopback(address)


def test_a_key_does_not_travel_in_clear_text():
    """To another machine a key needs TLS, or the caller's explicit word."""
    with pytest.raises(ConfigurationError, match="clear text"):
        Connection(address="gpu.example", api_key="secret")
    assert Connection(address="gpu.example", api_key="secret", tls=True).tls
    assert Connection(address="gpu.example", api_key="secret", allow_insecure=True).tls is False
    assert Connection(address="localhost", api_key="secret").tls is False


def test_a_key_is_not_shown():
    """Neither repr nor a refusal holds the key."""
    assert "secret" not in repr(Connection(api_key="secret"))
    with pytest.raises(ConfigurationError) as refusal:
        Connection(address="gpu.example", api_key="secret")
    assert "secret" not in str(refusal.value)


def test_a_ca_file_means_tls():
    """Whoever names an authority wants its certificate checked."""
    assert Connection(tls_ca_file="ca.pem").tls is True
    with pytest.raises(ConfigurationError):
        Connection(tls_ca_file="ca.pem", tls=False)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tls_cert_file": "x"},
        {"tls_key_file": "x"},
        {"api_key": ""},
        {"api_key": "a\nb"},
        {"api_key": "ключ"},
        {"max_message_bytes": 10},
        {"max_message_bytes": 2**31},
        {"metadata": {"": "x"}},
        {"metadata": {":path": "x"}},
        {"metadata": {"ключ": "x"}},
        {"metadata": {7: "x"}},
        {"metadata": {"x": "é"}},
        {"metadata": {"x": "\udce9"}},
        {"metadata": {"x": "a\nb"}},
        {"metadata": {"x": 7}},
        {"metadata": {"x-bin": "text"}},
        {"metadata": [("x", "y")]},
        {"keepalive_seconds": 0.5},
        {"restart_seconds": -1.0},
        {"timeout_seconds": 0},
    ],
)
def test_what_can_not_work_is_refused(arguments):
    """Half a certificate, what is no header, sizes and times out of range."""
    with pytest.raises(ConfigurationError):
        Connection(**arguments)


@pytest.mark.parametrize(
    "seconds", [0, -1, math.nan, -math.inf, pytest.param(-(10**5000), id="huge"), "5", None, True]
)
def test_wrong_deadlines_are_refused(seconds):
    """A deadline is over 0."""
    with pytest.raises(ConfigurationError):
        check_timeout(seconds)


def test_times_are_kept_as_floats():
    """gRPC takes no other kind of number everywhere; one that no float holds is no deadline."""
    assert math.inf == check_timeout(10**400)
    names = ("timeout_seconds", "keepalive_seconds", "resume_seconds", "restart_seconds")
    connection = Connection(**{name: Fraction(5, 2) for name in names})
    times = [getattr(connection, name) for name in names]
    assert [(float, 2.5)] * 4 == [(type(time), time) for time in times]
    for name in names[1:]:
        with pytest.raises(ConfigurationError, match=f"^{name} must be .* or more, and finite"):
            Connection(**{name: 10**400})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"timeout_seconds": "5"}, "timeout_seconds is '5'; it must be a number of seconds over 0"),
        ({"timeout_seconds": None}, "timeout_seconds is None; it must be a number"),
        ({"keepalive_seconds": "30"}, "keepalive_seconds is '30'; it must be a number."),
        ({"resume_seconds": None}, "resume_seconds is None; it must be a number."),
        ({"restart_seconds": "1"}, "restart_seconds is '1'; it must be a number."),
        ({"max_message_bytes": "1e6"}, "max_message_bytes is '1e6'; it must be a number."),
        ({"address": None}, "address must be text, not NoneType."),
        ({"api_key": b"secret"}, "api_key must be text, not bytes."),
        ({"tls_pin": 7}, "tls_pin must be text, not int."),
        ({"tls_ca_file": 7}, "tls_ca_file must be a path, not int."),
    ],
)
def test_what_is_of_another_kind_is_told(arguments, sentence):
    """By the library's own error, which says what would be right."""
    with pytest.raises(ConfigurationError) as refusal:
        Connection(**arguments)
    assert str(refusal.value).startswith(sentence)


def test_the_environment_is_read():
    """Each variable has its argument; an empty one counts as not set."""
    environment = {
        "LLAVACHAT_ADDRESS": "gpu.example:443",
        "LLAVACHAT_API_KEY": "secret",
        "LLAVACHAT_TLS": "yes",
        "LLAVACHAT_TLS_CA_FILE": "",
        "LLAVACHAT_TIMEOUT_SECONDS": "2.5",
        "LLAVACHAT_ALLOW_INSECURE": "0",
        "PATH": "/bin",
    }
    expected = {
        "address": "gpu.example:443",
        "api_key": "secret",
        "tls": True,
        "timeout_seconds": 2.5,
        "allow_insecure": False,
    }
    assert expected == read_environment(environment)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LLAVACHAT_TLS", "perhaps"), ("LLAVACHAT_TIMEOUT_SECONDS", "soon")],
)
def test_a_wrong_environment_names_its_variable(variable, value):
    """The sentence says which variable, and what it held."""
    with pytest.raises(ConfigurationError, match=f"{variable} is '{value}'"):
        read_environment({variable: value})
