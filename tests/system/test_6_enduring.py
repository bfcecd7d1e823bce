"""The service on a real systemd when memory runs out, the disk is full, the clock jumps, and its
credentials change; each with its time."""

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
from clock import HOUR_SECONDS, Clock
from figures import Figures
from host import PORT, SERVICE, Host, Releases, Streams
from llavachat import (
    AuthenticationFailed,
    Client,
    ConfigurationError,
    LimitReached,
    ServerUnavailable,
)
from memory import squeeze
from pictures import red_circle

STATE = "/var/lib/private/llavachat"
LONG_TOKENS = 1024


def test_memory_runs_out(host: Host, figures: Figures) -> None:
    """The kernel kills it amid answers: they end UNAVAILABLE, and it is back by itself."""
    streams = Streams(host, red_circle(), 4, max_tokens=LONG_TOKENS)
    process, began = host.process_id, time.monotonic()
    with squeeze(host) as has_killed:
        # What is computed already needs no more memory; a new question does.
        with suppress(ServerUnavailable):
            host.ask(red_circle())
        host.wait_until(lambda: host.process_id not in (0, process))
        killed = time.monotonic() - began
        host.wait_until(has_killed)
    assert {ServerUnavailable} == {type(outcome) for _, outcome in streams.results(30)}
    host.wait_until_serving()
    figures.add("memory runs out: killed by the kernel", killed)
    figures.add("memory runs out: serving again", time.monotonic() - began)
    journal = host.machine.read_journal("-u", SERVICE, "-b")
    assert "status=9/KILL" in journal
    assert host.ask(red_circle()).strip()


def test_a_full_disk_refuses_and_recovers(host: Host, figures: Figures) -> None:
    """New turns are refused with a time to come back, chats are read; room is all it takes."""
    machine = host.machine
    machine.run("systemctl", "stop", SERVICE)
    machine.shell(f"mount -t tmpfs -o size=16M,mode=0700 none {STATE}")
    try:
        machine.run("systemctl", "start", SERVICE)
        host.wait_until_serving()
        process = host.process_id
        with host.client() as client:
            with client.start(red_circle(), "What is this?") as reply:
                answer = reply.read()
            chat_id = reply.chat.id
            machine.shell(f"cat /dev/zero >{STATE}/ballast || true")
            refusal = ask_until_refused(client)
            assert refusal.retry_after_seconds
            assert answer == client.chat(chat_id).record().turns[0].answer
            machine.run("rm", f"{STATE}/ballast")
            began = time.monotonic()
            host.wait_until(lambda: _is_answered(client))
            figures.add("full disk: room again, answering", time.monotonic() - began)
        assert process == host.process_id
    finally:
        machine.run("systemctl", "stop", SERVICE)
        machine.run("umount", STATE)


def ask_until_refused(client: Client) -> LimitReached:
    """What had been set aside takes a turn or two."""
    for number in range(200):
        try:
            client.start(None, f"What is {number}?", max_tokens=1).read()
        except LimitReached as refusal:
            return refusal
    raise AssertionError("a full disk takes whatever it is given")


def _is_answered(client: Client) -> bool:
    try:
        return bool(client.start(red_circle(), "What is this?", timeout_seconds=30).read().strip())
    except LimitReached:
        return False


def test_a_clock_that_jumps_ends_nothing(host: Host, figures: Figures) -> None:
    """An hour ahead and an hour back, amid answers: the watchdog stays quiet, nothing is cut."""
    machine = host.machine
    folder = machine.root / "opt/llavachat/clock"
    folder.mkdir(exist_ok=True)
    clock = Clock(folder / "time")
    clock.set(0)
    variables = clock.variables()
    library = folder / "libfaketimeMT.so.1"
    library.write_bytes(Path(variables["LD_PRELOAD"]).read_bytes())
    variables |= {
        "LD_PRELOAD": "/opt/llavachat/clock/libfaketimeMT.so.1",
        "FAKETIME_TIMESTAMP_FILE": "/opt/llavachat/clock/time",
    }
    lines = "".join(f"Environment={name}={value}\n" for name, value in variables.items())
    drop_in = machine.root / "etc/systemd/system" / f"{SERVICE}.d" / "90-test.conf"
    # libfaketime makes the server slow: it locks and looks into its file whenever a thread asks the
    # time. Of 7 s, the unit's, nothing is left then on a machine that is slow itself.
    drop_in.write_text(f"[Service]\nWatchdogSec=20\n{lines}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", SERVICE)
    process, restarts = host.process_id, host.read_property("NRestarts")
    streams = Streams(host, red_circle(), 2, max_tokens=256)
    clock.set(HOUR_SECONDS)
    moved = time.monotonic()
    for hours in (1, -1, 0):
        clock.set(hours * HOUR_SECONDS)
        with host.client() as client, client.start(red_circle(), "What is this?") as reply:
            assert reply.read().strip()
            created = reply.chat.record().turns[0].create_time.timestamp()
        assert abs(created - time.time() - hours * HOUR_SECONDS) < HOUR_SECONDS / 2
    results = streams.results(120)
    assert {str} == {type(outcome) for _, outcome in results}
    assert moved < min(at for at, _ in results), "they had ended before the clock moved"
    host.wait_until(lambda: "waiting for a question" in host.read_property("StatusText"))
    # Longer than the watchdog waits since the clock has moved.
    host.wait_until(lambda: time.monotonic() > moved + 25, 30)
    assert (process, restarts) == (host.process_id, host.read_property("NRestarts"))
    figures.note("clock moved by an hour, twice, amid 2 answers", "none cut, no restart")


def test_credentials_are_rotated(host: Host, releases: Releases, figures: Figures) -> None:
    """A new certificate and a new key by one run of the installer; the old ones open nothing."""
    wide = ("--listen", f"0.0.0.0:{PORT}")
    machine = host.machine
    folder = machine.root / "etc/llavachat/credentials"
    server = "/opt/llavachat/current/venv/bin/llavachat-server"
    pins = []
    try:
        for key in ("first-key", "second-key"):
            said = machine.run(
                server, "certs", "self-signed", "--folder", f"/tmp/{key}", "--name", "localhost"
            )
            pins.append(next(word for word in said.split() if word.startswith("sha256:")))
            machine.shell(f"cp /tmp/{key}/tls.* /etc/llavachat/credentials")
            (folder / "api-key").write_text(key)
            began = time.monotonic()
            host.install(releases.this, *wide)
            assert ask_with(key, pins[-1]).strip()
        figures.add("credentials rotated: old ones out, answering", time.monotonic() - began)
        with pytest.raises(AuthenticationFailed):
            ask_with("first-key", pins[1])
        with pytest.raises(ConfigurationError, match="not the one in tls_pin"):
            ask_with("second-key", pins[0])
    finally:
        machine.shell("rm -rf /etc/llavachat/credentials/* /tmp/first-key /tmp/second-key")
        host.install(releases.this, "--listen", f"127.0.0.1:{PORT}")


def ask_with(key: str, pin: str) -> str:
    """One answer with a key, from the server whose certificate this is."""
    with Client(f"localhost:{PORT}", tls_pin=pin, api_key=key) as client:
        return client.start(red_circle(), "What is this?", timeout_seconds=30).read()


def test_weights_are_quantised_once(host: Host, releases: Releases, figures: Figures) -> None:
    """The first start keeps what it has quantised, inside the sandbox; the next ones read that."""
    machine = host.machine
    list_copy = "cd /var/cache/private/llavachat-server && find . -type f -printf '%p %i %T@\\n'"
    took = []
    try:
        host.install(releases.this, "--quantization", "nf4")
        first = sorted(machine.shell(list_copy).splitlines())
        assert [line for line in first if ".safetensors" in line], first
        for _ in range(2):
            took.append(read_loading_seconds(host))
            machine.run("systemctl", "restart", SERVICE)
            assert host.ask(red_circle()).strip()
            assert first == sorted(machine.shell(list_copy).splitlines())
        figures.note("weights loaded: quantised, then read", f"{took[0]:.1f} s, {took[1]:.1f} s")
    finally:
        host.install(releases.this, "--quantization", "")
        machine.shell("rm -rf /var/cache/private/llavachat-server/*")


def read_loading_seconds(host: Host) -> float:
    """How long the present server took to load its weights, by its journal."""
    (line,) = host.machine.read_journal(
        f"_PID={host.process_id}", "LLAVACHAT_EVENT=loaded weights"
    ).splitlines()
    return float(json.loads(line)["took_seconds"])
