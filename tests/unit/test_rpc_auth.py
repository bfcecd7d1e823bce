"""Keys: known by their hashes, compared without telling how close."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.rpc.auth import BadKey, Key, KeyRing, hash_secret


def ring(**secrets: str) -> KeyRing:
    """Keys by their tenants' names."""
    return KeyRing(Key(tenant, hash_secret(secret)) for tenant, secret in secrets.items())


def find_tenant(keys: KeyRing, header: str) -> str | None:
    """Whose key a header holds."""
    key = keys.find(header)
    return None if key is None else key.tenant


def test_a_key_opens_its_tenant() -> None:
    """Each its own."""
    keys = ring(anna="k1", ben="k2")
    assert ["anna", "ben"] == [find_tenant(keys, f"Bearer {key}") for key in ("k1", "k2")]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "k1",
        "Basic k1",
        "Digest k1",
        "Bearer k1 k1",
        "Bearerk1",
    ],
)
def test_nothing_else_opens(header: str) -> None:
    """Without the scheme, without a key, or with another one, there is no tenant."""
    assert None is find_tenant(ring(anna="k1"), header)


def test_the_scheme_may_be_written_in_any_case() -> None:
    """RFC 9110: authentication schemes are case-insensitive."""
    assert "anna" == find_tenant(ring(anna="k1"), "bearer k1")


def test_a_key_is_called_by_the_beginning_of_its_hash() -> None:
    """Enough to tell keys apart, and of no use to who reads it; the hash is not shown whole."""
    key = Key("anna", hash_secret("k1"))
    assert hashlib.sha256(b"k1").hexdigest()[:12] == key.id
    assert [] == [text for text in (key.sha256.hex(), repr(key.sha256)) if text in repr(key)]


@pytest.mark.parametrize("name", ["", "an/na", ".anna", "a" * 65, "a b", "a\n"])
def test_names_can_stand_in_a_file_and_a_log(name: str) -> None:
    """Others are refused."""
    with pytest.raises(BadKey, match="a name has 1 to 64"):
        Key(name, b"")


@given(header=st.text())
def test_no_header_breaks_it(header: str) -> None:
    """Any text is a wrong key, never an error."""
    assert None is find_tenant(ring(nobody="\x00"), header)
