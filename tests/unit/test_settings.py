"""Settings: which source wins, and what a server is by them."""

import errno
import os
import re
from pathlib import Path

import llavachat
import pytest
from llavachat_server import state_folder
from llavachat_server.__main__ import main
from llavachat_server.flags import SettingsError
from llavachat_server.network import is_loopback
from llavachat_server.profiles import PROFILES, SHAPES_FOLDER
from llavachat_server.resolution import resolve_profile
from llavachat_server.settings import Settings, load
from llavachat_server.state_folder import make_state_folder
from llavachat_server.values import Quantization
from llavachat_server.variables import find_unknown_variables
from setting_sources import forget_settings, write_config


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment that the tests run in."""
    forget_settings(monkeypatch)


def test_nothing_given_serves_the_embedded_model_on_this_machine() -> None:
    """The first try works: no flag is needed, and nobody else can connect."""
    settings = load([])
    assert ("127.0.0.1:50051", "shapes") == (settings.listen, settings.profile)
    assert PROFILES["shapes"] == resolve_profile(settings)


def test_flags_win_over_environment_over_file_over_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source loses to the one before it, value by value."""
    config = write_config(
        tmp_path, "max_tokens = 10\nmax_queued_turns = 10\nmax_running_turns = 10\n"
    )
    monkeypatch.setenv("LLAVACHAT_MAX_TOKENS", "20")
    monkeypatch.setenv("LLAVACHAT_MAX_QUEUED_TURNS", "20")
    profile = resolve_profile(load(["--config", config, "--max-tokens", "30"]))
    assert (30, 20, 10) == (
        profile.max_tokens,
        profile.max_queued_turns,
        profile.max_running_turns,
    )
    assert PROFILES["shapes"].max_images_per_turn == profile.max_images_per_turn


def test_the_file_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLAVACHAT_CONFIG does what --config does."""
    monkeypatch.setenv("LLAVACHAT_CONFIG", write_config(tmp_path, 'listen = "[::1]:0"\n'))
    assert "[::1]:0" == load([]).listen


PATHS = [name for name, field in Settings.model_fields.items() if "Path" in str(field.annotation)]


@pytest.mark.parametrize("name", PATHS)
def test_a_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In a file as in a shell, for each setting that is a path, and for the file's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").touch()
    other = {"tls_cert_file": "tls_key_file", "tls_key_file": "tls_cert_file"}.get(name)
    names = ["tls_cert_file", "tls_key_file"] if name == "tls_client_ca_file" else [other]
    lines = [f'{each} = "~/there"\n' for each in (name, *names) if each]
    write_config(tmp_path, "".join(lines))
    assert tmp_path / "there" == getattr(load(["--config", "~/settings.toml"]), name)


def test_a_tilde_before_a_model_s_folder_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's folder is text, because it may be a hub's id."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    config = write_config(tmp_path, 'model = "~/weights"\n')
    assert str(tmp_path / "weights") == resolve_profile(load(["--config", config])).model


def test_serve_is_a_word_that_may_stand_first() -> None:
    """The verb is optional."""
    assert 1.0 == load(["serve", "--grace-seconds", "1"]).grace_seconds


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLAVACHAT_PROFILE= is no profile."""
    monkeypatch.setenv("LLAVACHAT_PROFILE", "")
    assert "shapes" == load([]).profile


def test_switches_can_be_turned_on_and_off(tmp_path: Path) -> None:
    """A flag takes back what the file says."""
    config = write_config(tmp_path, "reflection = true\n")
    assert load(["--config", config]).reflection
    assert not load(["--config", config, "--no-reflection"]).reflection


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/socket", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.168.0.1:1", False),
        ("example.org:1", False),
    ],
)
def test_loopback_is_told_from_the_rest(listen: str, expected: bool) -> None:
    """Only what this machine alone can reach is loopback."""
    assert expected is is_loopback(listen)


def test_another_model_makes_a_custom_profile(tmp_path: Path) -> None:
    """A folder, or a pinned hub id, replaces the model; the profile's name is not kept."""
    folder = resolve_profile(load(["--model", str(tmp_path), "--quantization", "nf4"]))
    assert ("custom", str(tmp_path), Quantization.NF4) == (
        folder.name,
        folder.model,
        folder.quantization,
    )
    hub = resolve_profile(load(["--model", "owner/name", "--revision", "a" * 40]))
    assert ("custom", "owner/name", "a" * 40) == (hub.name, hub.model, hub.revision)


def test_a_profile_keeps_its_limits_for_another_model(tmp_path: Path) -> None:
    """--profile with --model: limits and defaults of the profile, weights of the folder."""
    profile = resolve_profile(load(["--profile", "shapes", "--model", str(tmp_path)]))
    assert PROFILES["shapes"].default_sampling == profile.default_sampling
    assert "custom" == profile.name


def test_the_embedded_folder_by_path_is_still_shapes() -> None:
    """Naming the embedded checkpoint by its folder changes nothing."""
    assert "shapes" == resolve_profile(load(["--model", str(SHAPES_FOLDER)])).name


def test_a_smaller_longest_answer_lowers_the_default() -> None:
    """The default answer is never longer than the longest."""
    profile = resolve_profile(load(["--max-tokens", "5"]))
    assert (5, 5) == (profile.max_tokens, profile.default_sampling.max_tokens)


def test_the_command_refuses_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence on stderr, no traceback."""
    assert 2 == main(["--profile", "none"])
    shown = capsys.readouterr()
    assert "" == shown.out
    assert 1 == len(shown.err.splitlines())
    assert shown.err.startswith("llavachat-server: --profile: 'none' given; allowed:")


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """--help is complete."""
    with pytest.raises(SystemExit) as caught:
        load(["--help"])
    assert 0 == caught.value.code
    shown = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in shown


def test_help_ends_with_the_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """On a line of their own, each that there is; each of them answers to --help as well."""
    with pytest.raises(SystemExit):
        load(["--help"])
    expected = "Other commands: llavachat-server keys | certs | audit | store; each has a --help."
    assert expected == capsys.readouterr().out.splitlines()[-1]


def test_a_variable_that_nobody_reads_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the setting that it is near to, in any case; the client's own are somebody's."""
    for name in [name for name in os.environ if name.upper().startswith("LLAVACHAT_")]:
        monkeypatch.delenv(name)
    client = Path(llavachat.__file__).parent
    sources = "".join(path.read_text() for path in client.rglob("*.py"))
    named = set(re.findall(r"LLAVACHAT_[A-Z0-9_]*[A-Z0-9]", sources))
    assert {"LLAVACHAT_API_KEY", "LLAVACHAT_SERVER", "LLAVACHAT_TLS_PIN"} <= named
    for name in (*named, "LLAVACHAT_CONFIG", "llavachat_listen"):
        monkeypatch.setenv(name, "x")
    assert {} == find_unknown_variables([*Settings.model_fields])
    monkeypatch.setenv("LLAVACHAT_MAX_CHAT_AGE_DAY", "30")
    monkeypatch.setenv("llavachat_xyz", "x")
    assert {
        "LLAVACHAT_MAX_CHAT_AGE_DAY": "LLAVACHAT_MAX_CHAT_AGE_DAYS",
        "llavachat_xyz": "",
    } == find_unknown_variables([*Settings.model_fields])


@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_a_place_for_no_folder_is_a_wrong_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    """Found before the port opens, where a folder is needed; no start would mend it."""
    (tmp_path / "file").touch()
    for place in ("/proc/nope", str(tmp_path / "file"), str(tmp_path / "file" / "in")):
        settings = load(["--store", store, "--state-folder", place])
        if store == "memory":
            make_state_folder(settings)
            continue
        with pytest.raises(SettingsError, match=rf"^state_folder: '{place}' given; allowed: a fol"):
            make_state_folder(settings)
        assert 2 == main(["--store", store, "--state-folder", place])
        assert "\n" not in capsys.readouterr().err.rstrip("\n")
    made = tmp_path / "a" / "b"
    make_state_folder(load(["--store", store, "--state-folder", str(made)]))
    assert (store == "sqlite") == made.is_dir()
    (tmp_path / "volume").symlink_to(tmp_path / "not mounted")
    make_state_folder(load(["--store", store, "--state-folder", str(tmp_path / "volume" / "in")]))


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_disk_that_takes_nothing_now_is_no_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """Who opens the store tells of it, and ends with the status after which it is tried again."""

    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(state_folder, "TemporaryFile", refuse)
    make_state_folder(load(["--store", "sqlite", "--state-folder", str(tmp_path)]))
