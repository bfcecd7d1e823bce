"""Wrong settings: each is refused in one sentence: its name, what was given, what is allowed."""

import re
from pathlib import Path
from typing import get_args

import pytest
from llavachat_server.__main__ import main
from llavachat_server.flags import SettingsError, flag_of
from llavachat_server.ops import telemetry
from llavachat_server.resolution import resolve_profile
from llavachat_server.settings import Settings, load
from setting_sources import forget_settings, write_config

WORD = "s3cret"
NUMBERS = [
    name
    for name, field in Settings.model_fields.items()
    if {int, float} & {field.annotation, *get_args(field.annotation)}
]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment that the tests run in."""
    forget_settings(monkeypatch)


def refusal(*arguments: str) -> str:
    """The sentence that refuses settings."""
    with pytest.raises(SettingsError) as caught:
        resolve_profile(load(arguments))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


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
            "36500",
        ),
        (
            ["--max-tokens", "0"],
            "--max-tokens: '0' given; allowed: a whole number of tokens, 1 to 32768",
        ),
        (
            ["--max-tokens", "many"],
            "--max-tokens: 'many' given; allowed: a whole number of tokens, 1 to 32768",
        ),
        (
            ["--max-store-bytes", "1GB"],
            "--max-store-bytes: '1GB' given; allowed: a whole number of bytes, 1048576 or more",
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


@pytest.mark.parametrize("name", NUMBERS)
def test_a_bound_is_taken_as_it_is_told(name: str) -> None:
    """Whoever is told of one will copy it."""
    flag = flag_of(name)
    told = refusal(flag, "many").partition("allowed: ")[2].replace(", over 0", "")
    bounds = re.findall(r"\d\S*", told)
    assert bounds
    assert bounds == [f"{getattr(load([flag, bound]), name):.0f}" for bound in bounds]


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
        (
            "max_tokens = true",
            "max_tokens in '{config}': True given; allowed: a whole number of tokens, 1 to 32768",
        ),
        (
            "grace_seconds = false",
            "grace_seconds in '{config}': False given; allowed: a number of seconds, 0 to 3600",
        ),
        ('profle = "shapes"', "'profle' in '{config}' is not a setting; did you mean profile?"),
        ('Profile = "shapes"', "'Profile' in '{config}' is not a setting; did you mean profile?"),
        ('LISTEN = "[::1]:0"', "'LISTEN' in '{config}' is not a setting; did you mean listen?"),
        ('[server]\nprofile = "shapes"', "[server] in '{config}': sections are not used; write"),
        ("[[server]]\na = 1", "[[server]] in '{config}': sections are not used; write"),
        ("[[listen]]\na = 1", "[[listen]] in '{config}': sections are not used; write"),
        ("listen = [1]", "listen in '{config}': [1] given; allowed: text, in quotes"),
        ("state_folder = 5", "state_folder in '{config}': 5 given; allowed: text, in quotes"),
        ("tls_cert_file = 5", "tls_cert_file in '{config}': 5 given; allowed: text, in quotes"),
        ("ready_file = true", "ready_file in '{config}': True given; allowed: text, in quotes"),
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


def test_metrics_without_their_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install; and a server that is not asked for them needs none."""
    monkeypatch.setattr(telemetry, "_NEEDED", ("opentelemetry.not_there", "not_there"))
    assert refusal("--metrics-listen", "127.0.0.1:0") == (
        "metrics_listen needs OpenTelemetry, which is not installed; "
        "install it by pip install -c constraints.txt '.[server,otel]', in a checkout"
    )
    load([])
