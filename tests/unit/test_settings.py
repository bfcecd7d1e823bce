"""Settings: which source wins, and how wrong ones are refused."""

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
from llavachat_server.ops import telemetry
from llavachat_server.profiles import PROFILES, SHAPES_FOLDER
from llavachat_server.resolution import resolve_profile
from llavachat_server.settings import Settings, load
from llavachat_server.state_folder import make_state_folder
from llavachat_server.values import Quantization
from llavachat_server.variables import find_unknown_variables

WORD = "s3cret"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment that the tests run in."""
    for name in (*Settings.model_fields, "config"):
        monkeypatch.delenv(f"LLAVACHAT_{name.upper()}", raising=False)


def refusal(*arguments: str) -> str:
    """The sentence that refuses settings."""
    with pytest.raises(SettingsError) as caught:
        resolve_profile(load(arguments))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def write_config(folder: Path, text: str) -> str:
    """A settings file; its path."""
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return str(path)


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
    ("arguments", "says"),
    [
        (
            ["--quantization", "int4"],
            "--quantization: 'int4' given; allowed: 'none', 'int8' or 'nf4'",
        ),
        (
            ["--profile", "shape"],
            "--profile: 'shape' given; allowed: 'shapes', 'llava-1.5-7b' or 'llava-1.5-13b'",
        ),
        (
            ["--max-chat-age-days", "36501"],
            "--max-chat-age-days: '36501' given; allowed: a number of days, over 0 and at most "
            "36,500",
        ),
        (
            ["--max-tokens", "0"],
            "--max-tokens: '0' given; allowed: a whole number of tokens, 1 to 32,768",
        ),
        (
            ["--max-tokens", "many"],
            "--max-tokens: 'many' given; allowed: a whole number of tokens, 1 to 32,768",
        ),
        (
            ["--max-store-bytes", "1GB"],
            "--max-store-bytes: '1GB' given; allowed: a whole number of bytes, 1,048,576 or more",
        ),
        (
            ["--max-chat-age-days", "30d"],
            "--max-chat-age-days: '30d' given; allowed: a number of days, over 0 and at most",
        ),
        (
            ["--int8-threshold", "nan"],
            "--int8-threshold: 'nan' given; allowed: a number, 0 or more",
        ),
        (
            ["--listen", "256.1.1.1:5"],
            "--listen: '256.1.1.1:5' given; allowed: HOST:PORT with an IP address or a name; "
            "256.1.1.1 is no address",
        ),
        (
            ["--config", "there.toml", "keys", "list"],
            "keys is a command and comes first, as in `llavachat-server keys --help`; of settings "
            "it takes --file FILE alone, and reads LLAVACHAT_STATE_FOLDER and LLAVACHAT_CONFIG",
        ),
        (["--exact", "certs"], "certs is a command and comes first, as in"),
        (["--listen", "50051"], "--listen: '50051' given; allowed: HOST:PORT"),
        (["--listen", "::1:50051"], "--listen: '::1:50051' given; allowed: an IPv6 address in"),
        (["--revision", "main"], "--revision: 'main' given; allowed: the 40 hexadecimal digits"),
        (["--keys-file", "/no/such"], "--keys-file:"),
        (["--keys-file", "/tmp/" + "x" * 300], "--keys-file:"),
        (["--config", "/tmp/" + "x" * 300], "config:"),
        (["--model", "/tmp/" + "x" * 300, "--revision", "a" * 40], "model:"),
        (
            ["--listen", "0.0.0.0:1", "--state-folder", "/tmp/" + "x" * 300],
            "listen: '0.0.0.0:1' can be reached",
        ),
        (["--profil", "shapes"], "--profil is not a setting; did you mean --profile?"),
        (["--port", "5000"], "--port is not a setting; did you mean --listen?"),
        (["--host=::1"], "--host is not a setting; did you mean --listen?"),
        (["--zzz"], "--zzz is not a setting; see llavachat-server --help"),
        (["--listen"], "argument --listen: expected one argument"),
        (["--config", "/no/such"], "config: '/no/such' given; allowed: a TOML file that exists"),
        (["--model", "no such/model/here"], "model: 'no such/model/here' given; allowed: a folder"),
        (["--model", "./no-model"], "model: './no-model' given; allowed: a folder that exists"),
        (["--model", "../no-model"], "model: '../no-model' given; allowed: a folder that exists"),
        (["--model", "owner/name"], "model: 'owner/name' is a hub's id and needs --revision"),
        (
            ["--image-url-hosts", "example.org, 10.0.0.1"],
            "--image-url-hosts: 'example.org, 10.0.0.1' given; allowed: names of hosts as in "
            "pictures.example.org or *.example.org, not '10.0.0.1'",
        ),
        (["--revision", "a" * 40], "revision: a folder has none"),
        (["--listen", "0.0.0.0:1"], "listen: '0.0.0.0:1' can be reached from other machines and"),
        (
            ["--metrics-listen", "0.0.0.0:1"],
            "metrics_listen: '0.0.0.0:1' can be reached from other machines and needs "
            "tls_cert_file and keys_file",
        ),
        (["--metrics-listen", "9464"], "--metrics-listen: '9464' given; allowed: HOST:PORT"),
        (["--metrics-listen", "unix:/a"], "--metrics-listen: 'unix:/a' given; allowed: HOST:PORT"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(arguments: list[str], says: str) -> None:
    """Its name, what was given, and what is allowed."""
    assert refusal(*arguments).startswith(says), refusal(*arguments)


def test_a_wrong_variable_is_named_as_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator learns where the wrong value stands."""
    monkeypatch.setenv("LLAVACHAT_GRACE_SECONDS", "-1")
    assert refusal().startswith("LLAVACHAT_GRACE_SECONDS: '-1' given; allowed: a number of")


def test_a_wrong_variable_is_named_as_it_is_spelt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small letters are read as well."""
    monkeypatch.setenv("llavachat_listen", "bad")
    assert refusal().startswith("llavachat_listen: 'bad' given; allowed: HOST:PORT")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_tokens = true", "max_tokens in '{config}': True given; allowed: a number"),
        ("grace_seconds = false", "grace_seconds in '{config}': False given; allowed: a number"),
        ('profle = "shapes"', "'profle' in '{config}' is not a setting; did you mean profile?"),
        ('Profile = "shapes"', "'Profile' in '{config}' is not a setting; did you mean profile?"),
        ('LISTEN = "[::1]:0"', "'LISTEN' in '{config}' is not a setting; did you mean listen?"),
        ('[server]\nprofile = "shapes"', "[server] in '{config}': sections are not used; write"),
        ("reflection = 7", "reflection in '{config}': 7 given; allowed: true or false"),
        ("listen = 50051", "listen in '{config}': 50051 given; allowed: text, in quotes"),
        ('profile = "shape"', "profile in '{config}': 'shape' given; allowed: 'shapes',"),
        ("profile = ", "config: '{config}' is not TOML"),
        ("# \udcff", "config: '{config}' is not TOML: it is not UTF-8"),
        ("a = " + "[" * 100_000, "config: '{config}' is nested too deep"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    """Unknown keys, wrong values and broken files are refused with the file's name."""
    config = write_config(tmp_path, text)
    assert refusal("--config", config).startswith(says.format(config=config))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"postgres+psycopg://me:{WORD}@db/chats", "postgres+psycopg://***@db/chats"),
        (f"postgresql:/me:{WORD}@db", "postgresql:/***@db"),
        (f"me:{WORD}@db/chats", "***@db/chats"),
        (f"http://me:{WORD}@with'quote/@db", "http://***@db"),
        (
            f"http://db/chats?password={WORD}&sslmode=require",
            "http://db/chats?password=***&sslmode=",
        ),
        (f"host=db password={WORD} dbname=chats", "host=db password=*** dbname=chats"),
    ],
)
def test_a_refusal_shows_no_password(tmp_path: Path, value: str, shown: str) -> None:
    """Sentences go to logs, which more people read than settings."""
    config = write_config(tmp_path, f'store = "{value}"\n')
    sentences = [refusal("--config", config), refusal("--store", value), refusal("--model", value)]
    for sentence in sentences:
        assert shown in sentence
    write_config(tmp_path, f'store = ["{value}"]\n')
    sentences += [refusal("--config", config), refusal(value), refusal(f"--stoer={value}")]
    assert [] == [sentence for sentence in sentences if WORD in sentence]


def test_a_refused_host_is_shown_without_a_password() -> None:
    """As often as it is named."""
    sentence = refusal("--image-url-hosts", f"me:{WORD}@pictures.example.org")
    assert sentence.endswith("not '***@pictures.example.org'")
    assert WORD not in sentence


def test_certificate_and_key_go_together(tmp_path: Path) -> None:
    """One without the other is refused, by name."""
    file = tmp_path / "cert.pem"
    file.touch()
    assert "tls_cert_file and tls_key_file: give both or none" == refusal(
        "--tls-cert-file", str(file)
    )
    assert "tls_client_ca_file needs" in refusal("--tls-client-ca-file", str(file))


def test_an_open_network_needs_tls_and_keys_or_plain_words(tmp_path: Path) -> None:
    """What is missing is named; the setting that allows it anyway is too."""
    file = tmp_path / "file"
    file.touch()
    tls = ("--tls-cert-file", str(file), "--tls-key-file", str(file))
    listen = ("--listen", "0.0.0.0:1")
    assert "needs tls_cert_file and keys_file;" in refusal(*listen)
    assert "needs keys_file;" in refusal(*listen, *tls)
    assert "set allow_open_network" in refusal(*listen)
    assert "0.0.0.0:1" == load([*listen, *tls, "--keys-file", str(file)]).listen
    assert "0.0.0.0:1" == load([*listen, "--allow-open-network"]).listen


def test_the_first_key_is_made_where_the_settings_say_how_to_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a server is refused for keeps nobody from mending it, or from looking at its record."""
    file = tmp_path / "file"
    file.touch()
    config = write_config(
        tmp_path,
        f'listen = "0.0.0.0:1"\ntls_cert_file = "{file}"\ntls_key_file = "{file}"\n'
        f'state_folder = "{tmp_path}"\nmetrics_listen = "127.0.0.1:0"\n',
    )
    monkeypatch.setenv("LLAVACHAT_CONFIG", config)
    monkeypatch.setattr(telemetry, "_NEEDED", ("not_there",))
    assert 1 == main(["audit", "verify"])
    assert "there is no audit record in" in capsys.readouterr().err
    assert "needs keys_file" in refusal()
    assert 0 == main(["keys", "add", "anna"])
    assert "llavachat_" in capsys.readouterr().out
    assert "needs OpenTelemetry" in refusal()


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


def test_metrics_without_their_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install; and a server that is not asked for them needs none."""
    monkeypatch.setattr(telemetry, "_NEEDED", ("opentelemetry.not_there", "not_there"))
    assert refusal("--metrics-listen", "127.0.0.1:0") == (
        "metrics_listen needs OpenTelemetry, which is not installed; "
        "install it by pip install -c constraints.txt '.[server,otel]', in a checkout"
    )
    load([])


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
    monkeypatch.setenv("llavachat_xyz", WORD)
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
