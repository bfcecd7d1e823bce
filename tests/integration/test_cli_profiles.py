"""Saved servers: what `llavachat profiles` keeps is what `ask` uses, over real sockets and TLS."""

import json
import stat

import pytest
from llavachat.cli.app import run
from llavachat.cli.profiles import (
    Profile,
    Profiles,
    choose_profile,
    read_profiles,
    write_key,
    write_profiles,
)
from scripted_service import ScriptedServer


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    """A state folder of the test's own, and no variable that names a server."""
    folder = tmp_path / "state"
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(folder))
    for name in ("ADDRESS", "SERVER", "PROFILE", "API_KEY", "TLS_CA_FILE", "TLS_PIN"):
        monkeypatch.delenv(f"LLAVACHAT_{name}", raising=False)
    return folder


@pytest.fixture
def server():
    """A scripted service on a port that nothing but a profile names."""
    server = ScriptedServer()
    yield server
    server.stop()


def test_ask_uses_the_active_server_and_its_key(server, picture, tmp_path, capsys):
    """Saving makes it active; the key is read from its file at every call."""
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    assert 0 == run(["profiles", "mine", "-a", server.address, "--key-file", str(key)])
    assert 0 == run(["ask", picture, "What?"])
    assert "A red circle.\n" == capsys.readouterr().out
    assert "Bearer secret-key" == dict(server.service.metadata[-1])["authorization"]


def test_the_file_is_its_owners_and_holds_no_key(server, state, tmp_path):
    """0600, the folder 0700."""
    path = write_key("mine", "secret-key")
    write_profiles(Profiles("mine", {"mine": Profile(server.address, str(path))}))
    for file in (state / "profiles.json", path):
        assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert 0o700 == stat.S_IMODE(state.stat().st_mode)
    assert "secret-key" not in (state / "profiles.json").read_text()
    assert 0 == run(["profiles", "mine", "--delete"])
    assert not path.exists()


def test_a_named_server_goes_before_the_saved_one(server, picture, capsys, monkeypatch):
    """By flag, by variable and by LLAVACHAT_SERVER."""
    write_profiles(
        Profiles("away", {"away": Profile("localhost:1"), "here": Profile(server.address)})
    )
    assert 0 == run(["ask", "-a", server.address, picture, "What?"])
    monkeypatch.setenv("LLAVACHAT_SERVER", "here")
    assert 0 == run(["ask", picture, "What?"])
    monkeypatch.setenv("LLAVACHAT_SERVER", "nowhere")
    capsys.readouterr()
    assert 2 == run(["ask", picture, "What?"])
    assert "no such server is saved" in capsys.readouterr().err
    monkeypatch.delenv("LLAVACHAT_SERVER")
    monkeypatch.setenv("LLAVACHAT_ADDRESS", server.address)
    assert 0 == run(["ask", picture, "What?"])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PROFILE": "here"}, "here.example"),
        ({"PROFILE": "here", "SERVER": "there"}, "there.example"),
        ({"PROFILE": "shapes"}, "away.example"),
        ({"PROFILE": "shapes", "SERVER": "here"}, "here.example"),
        ({}, "away.example"),
    ],
)
def test_a_model_s_profile_is_no_saved_server(variables, expected, monkeypatch):
    """LLAVACHAT_PROFILE is the server's; it names a saved one where one is called so."""
    names = ("away", "here", "there")
    write_profiles(Profiles("away", {name: Profile(f"{name}.example") for name in names}))
    for name, value in variables.items():
        monkeypatch.setenv(f"LLAVACHAT_{name}", value)
    chosen = choose_profile()
    assert expected == (chosen.address if chosen else None)


def test_a_key_in_the_environment_needs_no_file(server, picture, tmp_path, monkeypatch, capsys):
    """One that was given another way goes before the saved one, whose file may be gone."""
    key = tmp_path / "key"
    write_profiles(Profiles("mine", {"mine": Profile(server.address, str(key))}))
    assert 2 == run(["ask", picture, "What?"])
    assert f"The key's file {key} can not be read" in capsys.readouterr().err
    monkeypatch.setenv("LLAVACHAT_API_KEY", "other-key")
    assert 0 == run(["ask", picture, "What?"])
    assert "Bearer other-key" == dict(server.service.metadata[-1])["authorization"]


def test_they_are_listed_chosen_and_left(capsys):
    """One is active, or none."""
    assert 0 == run(["profiles", "one", "-a", "one.example"])
    assert 0 == run(["profiles", "two", "-a", "two.example", "--pin", "sha256:" + "0" * 64])
    assert 0 == run(["profiles", "one"])
    capsys.readouterr()
    assert 0 == run(["profiles", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert [("one", True), ("two", False)] == [(each["name"], each["active"]) for each in listed]
    assert 0 == run(["profiles"])
    assert "two.example" in capsys.readouterr().out
    assert 0 == run(["profiles", "--none"])
    assert "" == read_profiles().active


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["profiles", "x"], "No server is saved as x"),
        (["profiles", "--delete"], "give its NAME"),
        (["profiles", "x", "--pin", "sha256:0"], "with its --address"),
        (["profiles", "../x", "-a", "one.example"], "is no name of a profile"),
        (["profiles", "x", "-a", "https://x"], "is not a server's address"),
        (["profiles", "x", "-a", "one.example", "--pin", "sha256:0"], "--pin is"),
        (["profiles", "x", "-a", "one.example", "--key-file", "none.key"], "can not be read"),
        (["profiles", "x", "-a", "one.example", "--key-file", "a\0b"], "its name is not a path"),
        (["profiles", "x", "-a", "one.example", "--key-file", "~nosuchuser/x"], "is not a path:"),
        (["profiles", "x", "-a", "one.example", "--ca-file", "~nosuchuser/x"], "no such user"),
        (["profiles", "x", "-a", "one.example", "--delete"], "exclude each other"),
    ],
)
def test_what_can_not_be_saved_is_told(arguments, sentence, capsys, state):
    """One sentence, exit code 2, and nothing is written."""
    assert 2 == run(arguments)
    assert sentence in capsys.readouterr().err
    assert not state.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"servers": {"x": {}}}', '{"servers": []}'])
def test_a_damaged_file_is_told(text, state, capsys):
    """With its path and what to do."""
    state.mkdir()
    (state / "profiles.json").write_text(text)
    assert 2 == run(["profiles"])
    assert "profiles.json holds no saved servers" in capsys.readouterr().err
