"""What the installer keeps, writes and judges: options, units, releases, weights, idleness."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
from llavachat_server.profiles import PROFILES, SHAPES_FOLDER

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cdk" / "assets"))

from llavachat_host import database, layout, model, release, units
from llavachat_host.idleness import explain_use
from llavachat_host.options import (
    DEFAULT_QUANTIZATION,
    NEEDS,
    Options,
    load_options,
    save_options,
    write_whole,
)
from llavachat_host.steps import HostError, InstallationRuns, Steps, hold_lock, run


def test_needs_are_those_of_the_servers_profiles() -> None:
    """Profiles, models, revisions and quantisations are the server's."""
    expected = {
        name: ("", "", profile.quantization.value)
        if profile.model == str(SHAPES_FOLDER)
        else (profile.model, profile.revision, profile.quantization.value)
        for name, profile in PROFILES.items()
    }
    actual = {
        name: (need.model, need.revision, DEFAULT_QUANTIZATION[name])
        for name, need in NEEDS.items()
    }
    assert expected == actual


def test_drop_in_names_only_credentials_that_exist() -> None:
    """Loopback needs none; each that is there becomes a credential and a flag."""
    plain = units.render_drop_in(Options(), set())
    assert "LoadCredential" not in plain
    assert "IPAddressAllow" not in plain
    assert "Environment=LLAVACHAT_METRICS_LISTEN=127.0.0.1:9464\n" in plain
    assert "METRICS" not in units.render_drop_in(Options(metrics_listen="off"), set())
    keyed = units.render_drop_in(Options(), {"keys", "api-key"})
    assert "LoadCredential=keys:/etc/llavachat/credentials/keys\n" in keyed
    assert "--keys-file ${CREDENTIALS_DIRECTORY}/keys" in keyed
    assert "api-key" not in keyed


def test_open_network_needs_every_credential() -> None:
    """What is missing is named; with all there, private networks are allowed and no others."""
    wide = Options(listen="0.0.0.0:50051")
    with pytest.raises(HostError, match=r"lacks tls\.crt, tls\.key"):
        units.render_drop_in(wide, {"keys"})
    text = units.render_drop_in(wide, {"keys", "tls.crt", "tls.key"})
    assert "IPAddressAllow=10.0.0.0/8 172.16.0.0/12 192.168.0.0/16\n" in text
    assert "169.254" not in text
    with pytest.raises(HostError, match=r"metrics-listen: 0\.0\.0\.0:9464 can be reached from"):
        units.render_drop_in(Options(metrics_listen="0.0.0.0:9464"), set())


def test_options_are_kept_and_checked(tmp_path: Path) -> None:
    """What was saved is loaded; what can not be is refused by name."""
    path = tmp_path / "host.json"
    assert Options() == load_options(path)
    options = Options(profile="llava-1.5-13b", idle_minutes=30)
    save_options(options, path)
    assert options == load_options(path)
    path.write_text("[]")
    with pytest.raises(HostError, match="correct or delete it"):
        load_options(path)
    wrongs = ({"profile": "gpt"}, {"listen": "50051"}, {"weights": "bucket"})
    for wrong in (*wrongs, {"metrics_listen": "no"}, {"listen": "off"}):
        with pytest.raises(HostError, match=next(iter(wrong)).replace("_", "-")):
            replace(Options(), **wrong).check()


def test_only_some_options_need_a_restart() -> None:
    """The idle stop is nobody's business but its own."""
    assert not Options().needs_restart(Options(idle_minutes=5, stop_command="true"))
    assert Options().needs_restart(Options(listen="127.0.0.1:1"))


@pytest.mark.parametrize(
    ("state", "activity", "age_seconds", "expected"),
    [
        ("active", {"idle_seconds": 601.0}, 0, None),
        ("active", {"idle_seconds": 599.0}, 0, "idle for 599 s of 600 s"),
        ("active", {"running_turns": 2}, 0, "2 running"),
        ("active", {"state": "stopping", "idle_seconds": 601.0}, 0, "the server is stopping"),
        ("active", {"idle_seconds": 601.0}, 60, "has not said for 60 s"),
        ("activating", {"idle_seconds": 601.0}, 0, "the service is activating"),
        ("failed", {"idle_seconds": 601.0}, 0, "the service is failed"),
        ("active", None, 0, "does not say whether"),
    ],
)
def test_machine_stays_while_anything_speaks_for_it(
    state: str,
    activity: dict[str, object] | None,
    age_seconds: float,
    expected: str | None,
    tmp_path: Path,
) -> None:
    """Only a serving, silent, up-to-date server lets the machine stop."""
    path = tmp_path / "activity.json"
    if activity is not None:
        path.write_text(
            json.dumps({"state": "serving", "running_turns": 0, "idle_seconds": 0.0, **activity})
        )
        os.utime(path, (time.time() - age_seconds,) * 2)
    reason = explain_use(Options(idle_minutes=10), state, path)
    assert (expected is None) == (reason is None)
    assert expected is None or (reason is not None and expected in reason)
    assert explain_use(Options(), state, path) == "it is never stopped: idle-minutes is 0"


def test_copy_of_weights_is_whole_only_with_its_manifest(tmp_path: Path) -> None:
    """No manifest, a short file, a lost file or no weights at all: not whole."""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"12345678")
    (tmp_path / "config.json").write_text("{}")
    assert not model.is_whole(tmp_path)
    model.write_manifest(tmp_path)
    assert model.is_whole(tmp_path)
    weights.write_bytes(b"1234")
    assert not model.is_whole(tmp_path)
    weights.unlink()
    assert not model.is_whole(tmp_path)
    model.write_manifest(tmp_path)
    assert not model.is_whole(tmp_path)


def make_source(folder: Path, code: bytes) -> release.Source:
    """A release's files."""
    (folder / "assets").mkdir(parents=True)
    (folder / "llavachat-1.2.3-py3-none-any.whl").write_bytes(code)
    (folder / "constraints.txt").write_text("torch==1\n")
    (folder / "assets" / "install").write_text("")
    return release.Source.find(folder)


def test_release_is_named_after_its_content(tmp_path: Path) -> None:
    """The same files are the same release; another wheel of one version is another."""
    first = make_source(tmp_path / "a", b"a")
    assert first.name == make_source(tmp_path / "b", b"a").name
    assert first.name != make_source(tmp_path / "c", b"c").name
    assert first.name.startswith("1.2.3-")


def test_release_without_its_files_is_refused(tmp_path: Path) -> None:
    """What lacks is named."""
    with pytest.raises(HostError, match="must hold one llavachat wheel; it holds 0"):
        release.Source.find(tmp_path)
    make_source(tmp_path / "a", b"a")
    (tmp_path / "a" / "constraints.txt").unlink()
    with pytest.raises(HostError, match=r"lacks .*constraints\.txt"):
        release.Source.find(tmp_path / "a")


def test_link_never_leads_to_an_incomplete_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release counts once it is sealed; the link is replaced in one step."""
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    link = tmp_path / "current"
    for name in ("a", "b"):
        folder = tmp_path / "releases" / name
        folder.mkdir(parents=True)
        release.point(link, folder)
        assert release.read_link(link) is None
        release.seal(folder, name)
        assert folder == release.read_link(link)


def test_write_whole_says_whether_it_changed(tmp_path: Path) -> None:
    """The first text and another are changes; the same again is none. The mode is as asked."""
    path = tmp_path / "file"
    assert [True, False, True] == [write_whole(path, text, 0o600) for text in ("a", "a", "b")]
    assert 0o600 == path.stat().st_mode & 0o777


def test_one_installation_at_a_time(tmp_path: Path) -> None:
    """A second one is refused while the first is at work."""
    lock = tmp_path / "lock"
    with hold_lock(lock), pytest.raises(InstallationRuns), hold_lock(lock):
        pass
    with hold_lock(lock):
        pass


def test_a_program_that_stays_in_the_background_holds_up_no_later_installation(
    tmp_path: Path,
) -> None:
    """As a build that leaves a helper behind: the installation that began it has ended well. One
    that failed may have left something that works on."""
    lock, gate = tmp_path / "lock", tmp_path / "gate"
    os.mkfifo(gate)
    words = 'exec >/dev/null 2>&1; read line <"$0" & exit '
    with hold_lock(lock):
        run(["sh", "-c", words + "0", str(gate)], failure="it can not be begun")
    with gate.open("w") as writer:
        with hold_lock(lock):
            pass
        writer.write("end\n")
    with pytest.raises(HostError, match="it failed"), hold_lock(lock):
        run(["sh", "-c", words + "1", str(gate)], failure="it failed")
    with gate.open("w") as writer:
        with pytest.raises(InstallationRuns), hold_lock(lock):
            pass
        writer.write("end\n")


class Told(Steps):
    """Steps that let a test wait for the first line."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Event()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)
        self.first.set()


def test_a_killed_installations_program_is_waited_for(tmp_path: Path) -> None:
    """It works on after its installer; the next one tells so, and begins when it has ended."""
    lock, gate = tmp_path / "lock", tmp_path / "gate"
    os.mkfifo(gate)
    installer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, sys; from llavachat_host.steps import hold_lock, run\n"
            "with hold_lock(pathlib.Path(sys.argv[1])):\n"
            "    run(['sh', '-c', 'read line <\"$0\"', sys.argv[2]], failure='')",
            lock,
            gate,
        ],
        env={**os.environ, "PYTHONPATH": str(Path(layout.__file__).parents[1])},
    )
    # A FIFO opens for writing once somebody reads it: the program is at work.
    with gate.open("w") as writer:
        with pytest.raises(InstallationRuns, match="another installation"), hold_lock(lock):
            pass
        installer.kill()
        installer.wait()
        with pytest.raises(InstallationRuns, match="was killed"), hold_lock(lock):
            pass
        told, held = Told(), Event()

        def go_on() -> None:
            with hold_lock(lock, told):
                held.set()

        thread = Thread(target=go_on)
        thread.start()
        assert told.first.wait(30)
        assert not held.is_set()
        writer.write("end\n")
    thread.join(30)
    assert held.is_set()
    assert ["waiting", "waiting"] == [line.split()[0] for line in told.lines]


def make_release(folder: Path, *migrations: str) -> Path:
    """A release as far as its database goes."""
    packages = folder / "venv" / "lib" / "python3.11" / "site-packages"
    versions = packages / "llavachat_server" / "chats" / "sql" / "migrations" / "versions"
    versions.mkdir(parents=True)
    for name in migrations:
        (versions / name).touch()
    return folder


def test_chats_are_copied_only_for_another_form(tmp_path: Path) -> None:
    """Not for the first release, not without a database, not for a release with the same one."""
    state = tmp_path / "state"
    state.mkdir()
    first = make_release(tmp_path / "first", "0001_chats.py")
    same = make_release(tmp_path / "same", "0001_chats.py")
    later = make_release(tmp_path / "later", "0001_chats.py", "0002_more.py")
    assert not database.needs_copy(first, later, state)
    (state / database.NAME).touch()
    assert not database.needs_copy(None, later, state)
    assert not database.needs_copy(first, same, state)
    assert database.needs_copy(first, later, state)
    assert database.needs_copy(later, first, state)


def test_chats_are_put_back_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what SQLite had beside them, and without what the later release has left there."""
    chats, beside = tmp_path / "chats.db", tmp_path / "chats.db-wal"
    chats.write_text("before")
    database.keep(Steps(), tmp_path)
    chats.write_text("after")
    beside.write_text("after, too")
    database.put_back(Steps(), tmp_path)
    assert [chats] == list(tmp_path.iterdir())
    assert "before" == chats.read_text()
    beside.write_text("before, too")
    database.keep(Steps(), tmp_path)
    beside.unlink()
    database.put_back(Steps(), tmp_path)
    assert "before, too" == beside.read_text()
    database.keep(Steps(), tmp_path)
    database.drop(tmp_path)
    assert {chats, beside} == set(tmp_path.iterdir())
    monkeypatch.setattr(database, "free_gib", lambda _: 0.3)
    with pytest.raises(HostError, match=r"disk: 0\.3 GiB free .* a copy of it needs 0\.5 GiB"):
        database.check_room(tmp_path)


def test_assets_can_be_run_however_they_came(tmp_path: Path) -> None:
    """A zip that was unpacked under a narrow umask keeps nobody from running the installer."""
    (tmp_path / "assets" / "units").mkdir(parents=True, mode=0o700)
    for name in ("install", "units/llavachat.service"):
        (tmp_path / "assets" / name).touch(mode=0o600)
    release.open_assets(tmp_path / "assets")
    modes = [
        (tmp_path / "assets" / name).stat().st_mode & 0o777
        for name in ("install", "units", "units/llavachat.service")
    ]
    assert [0o755, 0o755, 0o644] == modes
