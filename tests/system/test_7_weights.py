"""A model's weights on their way: from a hub by Hugging Face's own library, into a bucket and out
of it by the real AWS command line, onto an instance's own disk that is blank, and into the server.

The bucket is an emulated one, the hub one of the tests', the disk a loop device.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from host import MODEL_SERVICE, SERVICE, Host
from hub import Hub, run_hub
from llavachat_server.profiles import SHAPES_FOLDER
from pictures import red_circle

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cdk" / "assets"))

from llavachat_host import layout, model
from llavachat_host.machine import Disk
from llavachat_host.options import Options
from llavachat_host.steps import HostError, Steps

OPTIONS = Options(profile="llava-1.5-7b", weights="s3://weights/mirror")
NEED = OPTIONS.need
TOOLS = Path(__file__).resolve().parents[2] / ".venv-cdk" / "bin"
DISK_BYTES = 256 * 2**20
EMULATED_ACCOUNT = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def account() -> Iterator[dict[str, str]]:
    """An emulated account with an empty bucket; the environment of who uses it."""
    assert (TOOLS / "aws").exists(), "run `make test-system`: it installs the AWS command line"
    with subprocess.Popen(
        [TOOLS / "python", "-c", EMULATED_ACCOUNT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())
        environment = {
            "PATH": f"{TOOLS}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        aws("s3", "mb", "s3://weights", environment=os.environ | environment)
        yield environment
        server.stdin.close()


def aws(*words: str, environment: Mapping[str, str] = os.environ) -> str:
    """The AWS command line; what it wrote."""
    done = subprocess.run(
        [TOOLS / "aws", *words], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """One with the embedded model under the name of the one that is asked for."""
    with run_hub(Hub(NEED.model, NEED.revision, SHAPES_FOLDER)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


@pytest.fixture
def bucket(account: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the mirror, which is empty."""
    for name, value in account.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(model, "free_gib", lambda _: 100.0)
    monkeypatch.setattr(model, "find_instance_disk", lambda: None)
    yield model.name_prefix(OPTIONS)
    aws("s3", "rm", "--recursive", "s3://weights", environment=os.environ | account)


def be_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be a machine whose cache is this folder; where its weights are to come."""
    monkeypatch.setattr(layout, "CACHE", folder)
    monkeypatch.setattr(layout, "HUB", folder / "hub")
    monkeypatch.setattr(layout, "FAST_DISK", folder / "disk")
    return model.find_snapshot(NEED)


def prepare(*pauses: float) -> None:
    """What the unit runs before the server; with one try more for each pause."""
    model.prepare_model(OPTIONS, Path(sys.executable), Steps(), pauses)


def test_the_second_machine_takes_the_first_one_s_mirror(
    hub: Hub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is asked once; the bucket's copy is the same, byte for byte."""
    first = be_machine(tmp_path / "first", monkeypatch)
    prepare()
    assert 1 == len(hub.downloads)
    assert model.MANIFEST in aws("s3", "ls", f"{bucket}/")
    second = be_machine(tmp_path / "second", monkeypatch)
    prepare()
    assert 1 == len(hub.downloads)
    wanted = [SHAPES_FOLDER / "model.safetensors", SHAPES_FOLDER / "tokenizer.json"]
    for path in wanted:
        copies = [folder / path.name for folder in (first, second)]
        assert [path.read_bytes()] * 2 == [copy.read_bytes() for copy in copies]
    # Once there, nobody is asked.
    monkeypatch.setenv("PATH", "/nowhere")
    prepare()


@pytest.mark.parametrize("fault", ["short", "without its manifest"])
def test_a_mirror_that_is_not_whole_is_not_trusted(
    fault: str, hub: Hub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off while it was written, or damaged: the hub is asked, and the mirror is mended."""
    be_machine(tmp_path / "first", monkeypatch)
    prepare()
    if fault == "short":
        (tmp_path / "short").write_bytes(b"short")
        aws("s3", "cp", str(tmp_path / "short"), f"{bucket}/model.safetensors")
    else:
        aws("s3", "rm", f"{bucket}/{model.MANIFEST}")
    for name, num_downloads in (("second", 2), ("third", 2)):
        snapshot = be_machine(tmp_path / name, monkeypatch)
        prepare()
        assert model.is_whole(snapshot)
        assert num_downloads == len(hub.downloads)


def test_a_download_that_broke_off_is_gone_on_with(
    hub: Hub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run fails and says so; the next one asks for the file that is missing, and clears away
    what one that was killed had of it."""
    whole, half = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    hub.folder, hub.broken = tmp_path / "parts", half
    hub.folder.mkdir()
    for name in (whole, half):
        (hub.folder / name).write_bytes(os.urandom(2**20))
    snapshot = be_machine(tmp_path / "machine", monkeypatch)
    with pytest.raises(HostError, match="can not be fetched from the hub"):
        prepare()
    assert not model.is_whole(snapshot)
    blobs = snapshot.parents[1] / "blobs"
    (blobs / "0123.4567.incomplete").write_bytes(b"what was there when the machine was stopped")
    hub.broken = ""
    hub.downloads.clear()
    prepare()
    assert model.is_whole(snapshot)
    assert [half] == hub.downloads
    assert [] == list(blobs.glob("*.incomplete"))


def test_a_hub_that_comes_back_is_waited_for(
    hub: Hub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Try after try, each later than the one before; the last one's failure is the unit's."""
    snapshot = be_machine(tmp_path, monkeypatch)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            hub.broken = ""

    monkeypatch.setattr(model, "wait", wait)
    hub.broken = "model.safetensors"
    with pytest.raises(HostError, match="can not be fetched from the hub"):
        prepare(1)
    assert not model.is_whole(snapshot)
    prepare(2, 3, 4)
    assert model.is_whole(snapshot)
    assert [1, 2, 3] == waited
    # Longer than most troubles of others; and the unit's time does not end before the last try.
    assert 3600 < sum(model.BOOT_PAUSES) < 7200 - 1800


def test_a_mirror_that_fails_amid_its_copy_is_made_up_for_by_the_hub(
    hub: Hub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come whole is kept, what has not is fetched, and what a killed copy left is gone."""
    hub.folder = tmp_path / "parts"
    hub.folder.mkdir()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        (hub.folder / name).write_bytes(os.urandom(2**20))
    be_machine(tmp_path / "first", monkeypatch)
    prepare()
    # The manifest names it still: for this machine the copy ends amid its files.
    aws("s3", "rm", f"{bucket}/{names[1]}")
    snapshot = be_machine(tmp_path / "second", monkeypatch)
    left = layout.CACHE / "hub-on-system-disk" / snapshot.relative_to(layout.HUB)
    left.mkdir(parents=True)
    (left / f"{names[1]}.4b2F6a1c").write_bytes(b"half")
    break_sync(tmp_path, monkeypatch)
    hub.downloads.clear()
    prepare()
    assert model.is_whole(snapshot)
    assert [names[1]] == hub.downloads
    assert {*names, model.MANIFEST} == {path.name for path in snapshot.iterdir()}


def break_sync(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the AWS command line do all that it is told to, and say that its copies have failed."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "aws"
    program.write_text(f'#!/bin/sh\n{TOOLS}/aws "$@" && test "$2" != sync\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def test_without_a_bucket_in_reach_the_machine_starts_all_the_same(
    hub: Hub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that can not be written costs the next machine its time, and nobody an answer."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    snapshot = be_machine(tmp_path, monkeypatch)
    prepare()
    assert model.is_whole(snapshot)


@contextmanager
def blank_disk(folder: Path) -> Iterator[str]:
    """A loop device with nothing on it."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    words = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def read_mount(folder: Path) -> tuple[str, set[str]]:
    """What is mounted there, and how. Source: proc(5)."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, place, _, options, *_ = line.split()
        if place == str(folder):
            return device, set(options.split(","))
    return "", set()


def test_weights_lie_on_the_instance_s_own_disk(
    hub: Hub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blank, it is formatted and mounted so that nothing on it can run; blank again after a stop,
    it is filled again, from the mirror; one that holds somebody's files is left alone."""
    snapshot = be_machine(tmp_path / "machine", monkeypatch)
    for number in (1, 2):
        with blank_disk(tmp_path) as device, ExitStack() as stack:
            blank = Disk(device, "", is_blank=True)
            monkeypatch.setattr(model, "find_instance_disk", lambda disk=blank: disk)
            stack.callback(subprocess.run, ["umount", str(layout.FAST_DISK)], check=True)
            prepare()
            mounted, options = read_mount(layout.FAST_DISK)
            assert (device, True) == (mounted, {"nodev", "nosuid", "noexec"} <= options)
            assert layout.FAST_DISK in snapshot.resolve().parents
            assert model.is_whole(snapshot)
            assert 1 == len(hub.downloads), f"boot {number}"
    with blank_disk(tmp_path) as device:
        foreign = Disk(device, "", is_blank=False)
        monkeypatch.setattr(model, "find_instance_disk", lambda: foreign)
        prepare()
        assert ("", set()) == read_mount(layout.FAST_DISK)
        assert model.is_whole(snapshot)


@contextmanager
def without_weights(host: Host, address: str) -> Iterator[None]:
    """Have the machine wake with an empty disk, and with a hub at this address."""
    machine = host.machine
    file = machine.root / "etc/llavachat/host.json"
    kept = file.read_text()
    settings = machine.root / "etc/systemd/system" / f"{MODEL_SERVICE}.d" / "90-test.conf"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(f"[Service]\nEnvironment=HF_ENDPOINT={address}\n")
    # The model's unit alone reads it: the server goes on with the embedded model.
    file.write_text(json.dumps(json.loads(kept) | {"profile": OPTIONS.profile}))
    machine.shell(
        f"systemctl stop {SERVICE} {MODEL_SERVICE}; systemctl daemon-reload; "
        "mkdir -p /var/cache/llavachat; mount -t tmpfs -o size=20G none /var/cache/llavachat"
    )
    try:
        yield
    finally:
        file.write_text(kept)
        settings.unlink()
        machine.shell(
            f"systemctl stop {SERVICE} {MODEL_SERVICE}; umount /var/cache/llavachat; "
            "systemctl daemon-reload"
        )


# The last one: a machine takes this process into a network of its own, away from the bucket.
def test_a_machine_that_wakes_amid_the_hub_s_trouble_serves_when_it_is_over(
    host: Host, hub: Hub
) -> None:
    """By itself, by the same start: nobody is there to start the server once more."""
    hub.broken = "model.safetensors"
    with without_weights(host, hub.address):
        host.machine.run("systemctl", "start", "--no-block", SERVICE)
        told = ("--unit", MODEL_SERVICE, "--lines=50")
        host.wait_until(lambda: "model: try 1 of 13: " in host.machine.read_journal(*told))
        assert "activating" == host.machine.read_property(MODEL_SERVICE, "ActiveState")
        hub.broken = ""
        host.wait_until_serving()
        assert host.ask(red_circle()).strip()
