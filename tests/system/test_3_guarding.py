"""The sandbox around a server that really answers, its credentials, and the idle stop."""

import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from figures import Figures
from host import PORT, SERVICE, Host, Releases, Streams
from llavachat import AuthenticationFailed, Client
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from pictures import red_circle

CERTIFICATES = Path(__file__).resolve().parents[1] / "certificates"
METADATA = "169.254.169.254"
LOOK = (
    "import socket, sys\n"
    "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 3); print('reached')\n"
    "except OSError as error: print('refused')\n"
)


def test_exposure(host: Host, figures: Figures) -> None:
    """systemd's own judgement of the unit in which the model has just answered."""
    assert host.ask(red_circle()).strip()
    judged = host.machine.run("systemd-analyze", "security", "--no-pager", SERVICE)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", judged)
    assert found is not None, judged
    figures.note("systemd-analyze security, answering", found.group(1), "1.5")
    assert float(found.group(1)) <= 1.5, judged


def test_server_can_not_run_what_it_writes(host: Host) -> None:
    """As the server's user, in its own view of the files: what can be written can not be run."""
    process = host.process_id
    user = host.machine.run("stat", "--format=%u", f"/proc/{process}").strip()
    inside = ["nsenter", f"--target={process}", "--mount", f"--setuid={user}", "sh", "-c"]
    assert int(user) > 60_000
    for folder in ("/var/lib/llavachat", "/tmp", "/var/tmp", "/dev/shm", "/run/llavachat"):
        copy = f"cp /usr/bin/true {folder}/program && echo copied && {folder}/program"
        done = host.machine.run_raw(*inside, copy)
        assert "copied" in done.stdout, (folder, done.stdout)
        assert "Permission denied" in done.stdout, (folder, done.stdout)
    for folder in ("/opt/llavachat", "/usr", "/etc/llavachat", "/var/cache/llavachat"):
        done = host.machine.run_raw(*inside, f"touch {folder}/x")
        assert 0 != done.returncode, folder


def test_pictures_are_decoded_confined_inside_the_sandbox(host: Host) -> None:
    """The unit's sandbox lets decoders start, confine themselves further, and be stopped."""
    assert host.ask(red_circle()).strip()
    journal = host.machine.read_journal("-u", SERVICE, "-b", f"_PID={host.process_id}")
    assert '"serving"' in journal
    assert "without a filter of system calls" not in journal
    decoders = "pgrep -fc llavachat_server.images.decode[r]"
    members = f"cat /sys/fs/cgroup/system.slice/{SERVICE}/cgroup.procs | wc -l"
    # Three keepers, each with a child that is ready; and the server.
    # One that has just ended is followed by the next in a moment.
    host.wait_until(lambda: host.machine.shell(f"{decoders}; {members}").split() == ["6", "7"])
    half = red_circle()[:-200]
    with grpc.insecure_channel(f"127.0.0.1:{PORT}") as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        request = pb.StartChatRequest(prompt="?", images=[pb.Image(data=half)])
        with pytest.raises(grpc.RpcError, match="damaged or cut short"):
            list(stub.StartChat(request))
    assert host.ask(red_circle()).strip()
    host.machine.run("systemctl", "stop", SERVICE)
    assert ["0"] == host.machine.shell(f"{decoders} || true").split()


def test_server_can_not_reach_the_metadata_service(host: Host) -> None:
    """From the service's control group: loopback is reached, the metadata address is not."""
    subprocess.run(["ip", "addr", "add", f"{METADATA}/32", "dev", "lo"], check=True)
    listener = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", METADATA, "8169"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        look = f'python3 -c "{LOOK}"'
        join = f"echo $$ >/sys/fs/cgroup/system.slice/{SERVICE}/cgroup.procs; "
        once = f"{look} {METADATA} 8169 | grep reached && break; sleep 0.1"
        script = f"for i in $(seq 300); do {once}; done"
        assert "reached" == host.machine.shell(script).strip()
        assert "refused" == host.machine.shell(join + f"{look} {METADATA} 8169").strip()
        assert "reached" == host.machine.shell(join + f"{look} 127.0.0.1 {PORT}").strip()
    finally:
        listener.terminate()
        listener.wait()
        subprocess.run(["ip", "addr", "del", f"{METADATA}/32", "dev", "lo"], check=True)


def test_open_network_takes_keys_and_tls(host: Host, releases: Releases) -> None:
    """Beyond loopback there is no serving without both; with both, only the right key opens.

    The key is rotated by running the installer again.
    """
    wide = ("--listen", f"0.0.0.0:{PORT}")
    done = host.machine.run_raw(f"{releases.this}/assets/install", "run", *wide)
    assert 1 == done.returncode
    assert "lacks keys, tls.crt, tls.key" in done.stdout
    folder = host.machine.root / "etc/llavachat/credentials"
    (folder / "tls.crt").write_bytes((CERTIFICATES / "server.pem").read_bytes())
    (folder / "tls.key").write_bytes((CERTIFICATES / "server.key").read_bytes())
    try:
        for key in ("first-key", "second-key"):
            (folder / "api-key").write_text(key)
            host.install(releases.this, *wide)
            assert ask_with(key).strip()
            with pytest.raises(AuthenticationFailed):
                ask_with("another-key")
        with pytest.raises(AuthenticationFailed):
            ask_with("first-key")
        hashes = (folder / "keys").read_text()
        assert f"default {hashlib.sha256(b'second-key').hexdigest()}\n" == hashes
        assert "0" == host.machine.run("stat", "-c", "%u", "/etc/llavachat/credentials").strip()
    finally:
        host.machine.shell("rm -f /etc/llavachat/credentials/*")
        host.install(releases.this, "--listen", f"127.0.0.1:{PORT}")


def ask_with(key: str) -> str:
    """One answer over TLS with a key."""
    authority = CERTIFICATES / "ca.pem"
    with Client(f"localhost:{PORT}", tls_ca_file=authority, api_key=key) as client:
        return client.start(red_circle(), "What is this?", timeout_seconds=30).read()


def test_idle_machine_is_stopped_and_a_busy_one_is_not(
    host: Host, releases: Releases, figures: Figures
) -> None:
    """Never amid an answer or while the service starts; and then, when nobody has called."""
    stopped = "/run/machine-stopped"
    host.install(releases.this, "--idle-minutes", "0.05", "--stop-command", f"touch {stopped}")
    machine = host.machine
    machine.run("systemctl", "stop", "llavachat-idle.timer")
    machine.run("rm", "-f", stopped)
    look = ("/opt/llavachat/current/assets/install", "idle")
    try:
        streams = Streams(host, red_circle(), 8, max_tokens=1024)
        time.sleep(3.5)  # longer than the idle limit, amid the answers
        assert " running" in machine.run(*look)
        streams.results(60)
        machine.run("systemctl", "restart", "--no-block", SERVICE)
        assert "the service is " in machine.run(*look)
        host.wait_until_serving()
        began = time.monotonic()
        host.ask(red_circle())
        while machine.run_raw("test", "-e", stopped).returncode != 0:
            machine.run("systemctl", "start", "llavachat-idle.service")
            assert time.monotonic() - began < 60
            time.sleep(2.5)  # systemd refuses more than five starts in ten seconds
        figures.add("idle limit of 3 s: machine told to stop", time.monotonic() - began)
    finally:
        machine.run("rm", "-f", stopped)
        host.install(releases.this, "--idle-minutes", "0", "--stop-command", "systemctl poweroff")
