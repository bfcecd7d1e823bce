"""Keys: read from a file of hashes, compared without telling how close."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.rpc.auth import BadKeyFile, KeyRing


def digest(key: str) -> str:
    """The SHA-256 that stands in the file."""
    return hashlib.sha256(key.encode()).hexdigest()


def ring(folder: Path, text: str) -> KeyRing:
    """The keys of a file."""
    path = folder / "keys"
    path.write_text(text)
    return KeyRing.from_file(path)


def test_a_key_opens_its_tenant(tmp_path: Path) -> None:
    """Names may have several keys; comments and blank lines do not count."""
    text = f"# ours\n\nanna {digest('k1')}\nanna {digest('k2')}\nben  {digest('k3').upper()}\n"
    keys = ring(tmp_path, text)
    found = [keys.tenant(f"Bearer {key}") for key in ("k1", "k2", "k3")]
    assert ["anna", "anna", "ben"] == found


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer wrong", "k1", "Basic k1", "Bearer k1 k1", "Bearerk1"],
)
def test_nothing_else_opens(tmp_path: Path, header: str) -> None:
    """Without the scheme, without a key, or with another one, there is no tenant."""
    assert None is ring(tmp_path, f"anna {digest('k1')}\n").tenant(header)


def test_the_scheme_may_be_written_in_any_case(tmp_path: Path) -> None:
    """RFC 9110: authentication schemes are case-insensitive."""
    assert "anna" == ring(tmp_path, f"anna {digest('k1')}\n").tenant("bearer k1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the key file holds no key"),
        ("# nothing\n", "the key file holds no key"),
        ("anna\n", "line 1 of the key file: expected NAME SHA256"),
        (f"anna {'0' * 64} more\n", "line 1 of the key file: expected NAME SHA256"),
        (f"an/na {'0' * 64}\n", "line 1 of the key file: expected NAME SHA256"),
        ("\nanna sk-my-secret\n", "line 2 of the key file: the SHA-256 of the key"),
        (f"anna {'0' * 64}\nben {'0' * 64}\n", "line 2 of the key file: this key has another"),
    ],
)
def test_a_wrong_file_is_refused_without_its_content(tmp_path: Path, text: str, says: str) -> None:
    """The line's number is told; what stands there, perhaps a key, is not."""
    with pytest.raises(BadKeyFile) as caught:
        ring(tmp_path, text)
    assert str(caught.value).startswith(says)
    assert "sk-my-secret" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """No file, no server."""
    with pytest.raises(BadKeyFile, match="can not be read"):
        KeyRing.from_file(tmp_path / "none")


@given(header=st.text())
def test_no_header_breaks_it(header: str) -> None:
    """Any text is a wrong key, never an error."""
    assert None is KeyRing({"0" * 64: "nobody"}).tenant(header)
