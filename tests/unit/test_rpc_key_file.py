"""The file of keys: every word checked, its changes whole, old forms still read."""

import fcntl
import hashlib
import os
import resource
import stat
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.rpc.auth import Key, Scope, hash_secret
from llavachat_server.rpc.key_file import (
    BadKeyFile,
    KeyFiles,
    add_key,
    parse,
    read_keys,
    render,
    revoke_keys,
)

NOTHING = "0" * 64


def digest(secret: str) -> str:
    """The SHA-256 that stands in the file."""
    return hashlib.sha256(secret.encode()).hexdigest()


def write(folder: Path, text: str) -> Path:
    """A file of keys."""
    path = folder / "keys"
    path.write_text(text)
    return path


def test_the_old_form_is_read(tmp_path: Path) -> None:
    """NAME SHA256 alone opens the chats, without limits; names may have several keys."""
    text = f"# ours\n\nanna {digest('k1')}\nanna {digest('k2')}\nben  {digest('k3').upper()}\n"
    expected = [Key("anna", hash_secret("k1")), Key("anna", hash_secret("k2"))]
    assert [*expected, Key("ben", hash_secret("k3"))] == read_keys(write(tmp_path, text))


LIMITS = st.none() | st.integers(1, 10**9)


@given(
    scopes=st.frozensets(st.sampled_from(Scope), min_size=1),
    requests=LIMITS,
    tokens=LIMITS,
    concurrent=LIMITS,
    created=st.just("") | st.dates().map(str),
)
def test_what_is_written_is_read(
    scopes: frozenset[Scope],
    requests: int | None,
    tokens: int | None,
    concurrent: int | None,
    created: str,
) -> None:
    """Every setting comes back."""
    key = Key("anna", hash_secret("k1"), scopes, requests, tokens, concurrent, created)
    assert key == parse(render(key).split())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("anna\n", "line 1 of the key file: expected NAME SHA256"),
        (f"anna {NOTHING} more\n", "line 1 of the key file: after the hash come scopes="),
        (f"anna {NOTHING} scopes=all\n", "line 1 of the key file: scopes are one or more of chat"),
        (f"anna {NOTHING} max_concurrent=0\n", "line 1 of the key file: limits are whole numbers"),
        (f"anna {NOTHING} max_concurrent={'9' * 5000}\n", "line 1 of the key file: limits are"),
        (f"anna {NOTHING} created=today\n", "line 1 of the key file: days are written as"),
        (f"anna {NOTHING} scopes=chat scopes=chat\n", "line 1 of the key file: after the hash"),
        (f"an/na {NOTHING}\n", "line 1 of the key file: a name has"),
        ("\nanna sk-my-secret\n", "line 2 of the key file: the SHA-256 of the key"),
        (f"anna {NOTHING}\nben {NOTHING}\n", "line 2 of the key file: this key has another"),
    ],
)
def test_a_wrong_file_is_refused_without_its_content(tmp_path: Path, text: str, says: str) -> None:
    """The line's number is told; what stands there, perhaps a key, is not."""
    with pytest.raises(BadKeyFile) as caught:
        read_keys(write(tmp_path, text))
    assert str(caught.value).startswith(says)
    assert "sk-my-secret" not in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Rather than read as far as it goes."""
    (tmp_path / "keys").write_bytes(b"\xff\xfe")
    with pytest.raises(BadKeyFile, match="can not be read as text"):
        read_keys(tmp_path / "keys")


def test_changes_keep_the_other_lines(tmp_path: Path) -> None:
    """Comments, order and other keys stay; the file is its owner's alone."""
    text = f"# ours\n\nanna {digest('k1')}\n# his\nben {digest('k2')}\n"
    path = write(tmp_path, text)
    add_key(path, Key("carl", hash_secret("k3"), created="2026-12-31"))
    revoke_keys(path, lambda key: key.tenant == "anna")
    expected = f"# ours\n\n# his\nben {digest('k2')}\n"
    expected += f"carl {digest('k3')} scopes=chat created=2026-12-31\n"
    assert expected == path.read_text()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())


def test_who_changes_the_file_has_it_alone(tmp_path: Path) -> None:
    """Another command waits, and keeps what this one wrote."""
    path = tmp_path / "keys"
    ben = Thread(target=add_key, args=(path, Key("ben", hash_secret("k2"))))
    folder = os.open(tmp_path, os.O_RDONLY)

    def tell() -> None:
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ben.start()

    try:
        add_key(path, Key("anna", hash_secret("k1")), tell)
    finally:
        os.close(folder)
    ben.join()
    assert ["anna", "ben"] == [key.tenant for key in read_keys(path)]


def test_a_wrong_file_is_not_changed(tmp_path: Path) -> None:
    """Who can not read it all must not write it anew."""
    path = write(tmp_path, "anna\n")
    with pytest.raises(BadKeyFile):
        add_key(path, Key("ben", hash_secret("k2")))
    assert "anna\n" == path.read_text()


def test_no_file_is_an_open_server_until_there_is_one(tmp_path: Path) -> None:
    """And no server opens again because its file went away or broke."""
    path = tmp_path / "keys"
    files = KeyFiles([path])
    files.read()
    assert files.ring is None
    assert not files.refresh()

    add_key(path, Key("anna", hash_secret("k1")))
    assert files.refresh()
    assert not files.refresh()
    assert ["anna"] == [key.tenant for key in files.ring or ()]

    path.write_text("anna\n")
    with pytest.raises(BadKeyFile):
        files.refresh()
    path.unlink()
    with pytest.raises(BadKeyFile, match="gone"):
        files.refresh()
    assert ["anna"] == [key.tenant for key in files.ring or ()]


def hide(folder: Path) -> None:
    """Make a folder one that no path leads into, whoever asks: also root, as tests may run."""
    folder.rename(folder.with_name("hidden"))
    folder.symlink_to("x" * 300)


def show(folder: Path) -> None:
    """Take `hide` back."""
    folder.unlink()
    folder.with_name("hidden").rename(folder)


def test_a_hidden_folder_is_no_open_server(tmp_path: Path) -> None:
    """What can not be looked at may hold keys: nothing is opened, and it is tried again."""
    folder = tmp_path / "state"
    path = folder / "keys"
    add_key(path, Key("anna", hash_secret("k1")))
    hide(folder)
    files = KeyFiles([path])
    with pytest.raises(BadKeyFile, match=r"state/keys can not be looked at: File name too long$"):
        files.read()
    show(folder)
    files.read()

    hide(folder)
    for _ in range(2):
        with pytest.raises(BadKeyFile, match="can not be looked at"):
            files.refresh()
    assert ["anna"] == [key.tenant for key in files.ring or ()]
    show(folder)
    assert not files.refresh()


def test_what_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    """Though the file stays as it is: no descriptor may have been free."""
    path = tmp_path / "keys"
    add_key(path, Key("anna", hash_secret("k1")))
    files = KeyFiles([path])
    files.read()
    revoke_keys(path, lambda _: True)
    add_key(path, Key("ben", hash_secret("k2")))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(BadKeyFile, match="can not be read"):
            files.refresh()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert files.refresh()
    assert ["ben"] == [key.tenant for key in files.ring or ()]


def test_the_last_key_may_be_revoked_while_the_server_runs(tmp_path: Path) -> None:
    """It then lets nobody in; but a server that nobody may call does not start."""
    path = tmp_path / "keys"
    add_key(path, Key("anna", hash_secret("k1")))
    files = KeyFiles([path])
    files.read()
    revoke_keys(path, lambda _: True)
    assert files.refresh()
    assert [] == list(files.ring or ())
    with pytest.raises(BadKeyFile, match="holds no key"):
        KeyFiles([path]).read()


def test_of_several_files_one_that_vanishes_revokes_nothing(tmp_path: Path) -> None:
    """It is told until it is back or empty; meanwhile the other files are followed."""
    first, second = tmp_path / "first", tmp_path / "second"
    add_key(first, Key("anna", hash_secret("k1")))
    add_key(second, Key("ben", hash_secret("k2")))
    files = KeyFiles([first, second])
    files.read()
    first.unlink()
    for _ in range(2):
        with pytest.raises(BadKeyFile, match=r"/first is gone, and its keys stay in force; put"):
            files.refresh()
    assert {"anna", "ben"} == {key.tenant for key in files.ring or ()}

    add_key(second, Key("carl", hash_secret("k3")))
    revoke_keys(second, lambda key: key.tenant == "ben")
    assert files.refresh()
    assert {"anna", "carl"} == {key.tenant for key in files.ring or ()}
    with pytest.raises(BadKeyFile, match="first is gone"):
        files.refresh()

    first.touch()
    assert files.refresh()
    assert ["carl"] == [key.tenant for key in files.ring or ()]
    first.unlink()
    assert not files.refresh()


def test_two_files_are_one_ring(tmp_path: Path) -> None:
    """The operator's, and the one that the command keeps; a name is one tenant in both."""
    first, second = tmp_path / "first", tmp_path / "second"
    add_key(first, Key("anna", hash_secret("k1")))
    add_key(second, Key("ben", hash_secret("k2")))
    files = KeyFiles([first, second, tmp_path / "none"])
    files.read()
    assert {"anna", "ben"} == {key.tenant for key in files.ring or ()}
    add_key(second, Key("carl", hash_secret("k1")))
    with pytest.raises(BadKeyFile, match="another name elsewhere"):
        files.refresh()
