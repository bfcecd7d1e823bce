"""The install script, and whether the service that it starts is well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

CHATS = Path("/var/lib/private/llavachat")
"""Where systemd keeps the state of a service with a user of its own making."""

CREDENTIALS = Path("/etc/llavachat/credentials")
UNITS = ("llavachat.service", "llavachat-model.service")
PYTHON = Path("/opt/llavachat/current/venv/bin/python")
STOP_SECONDS = 75
"""The service may take 50 s for the turns that run, see its unit."""

ASK_HEALTH = """
import sys
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
certificate = open(sys.argv[2], "rb").read()
trust = grpc.ssl_channel_credentials(certificate)
with grpc.secure_channel(f"localhost:{sys.argv[1]}", trust) as channel:
    answer = health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=sys.argv[3]), timeout=20, wait_for_ready=True
    )
print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
"""


def prepare(release: Path, deployment: dict[str, Any], say: Callable[[str], None]) -> None:
    """Have the release's install script look at this machine and bring all that it needs.

    Raises:
        RuntimeError: it failed; its own lines say why.
    """
    run_script("prepare", release, deployment, say)


def install(release: Path, deployment: dict[str, Any], say: Callable[[str], None]) -> None:
    """Run the release's install script; it returns once the service has answered a picture.

    Raises:
        RuntimeError: it failed; its own lines say why.
    """
    run_script("run", release, deployment, say)


def run_script(
    verb: str, release: Path, deployment: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Run the install script with the deployment's options, and tell each line that it says.

    Raises:
        RuntimeError: it ended with a failure.
    """
    options = {
        "release": str(release),
        "profile": deployment["profile"],
        "quantization": deployment["quantization"],
        "listen": f"0.0.0.0:{deployment['port']}",
        "weights": deployment["weights"],
        "idle-minutes": str(deployment["idle_minutes"]),
    }
    if deployment["stop_command"]:
        options["stop-command"] = deployment["stop_command"]
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, str(release / "assets" / "install"), verb, *words]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # A group of its own: with pip or a download at work, more than one process has to go.
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                say(line.rstrip())
            process.wait()
        except BaseException:
            # At its end, `with` waits for the process, and this one may never end by itself.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise RuntimeError(f"the install script failed at {verb!r}; see above")


def stop() -> None:
    """Have the service down, now and at every boot, whatever it is at."""
    try:
        subprocess.run(
            ["systemctl", "disable", "--now", *UNITS],
            check=False,
            capture_output=True,
            timeout=STOP_SECONDS,
        )
    except subprocess.TimeoutExpired:
        kill = ["systemctl", "kill", "--signal=KILL", *UNITS]
        subprocess.run(kill, check=False, capture_output=True)
        # What it had open is closed when this returns.
        wait = ["systemctl", "stop", *UNITS]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(wait, check=False, capture_output=True, timeout=15)


def check_health(port: int, say: Callable[[str], None]) -> None:
    """Ask the service's own health, as a client would: over TLS, by its certificate.

    Raises:
        RuntimeError: it does not say SERVING.
    """
    certificate = str(CREDENTIALS / "tls.crt")
    done = subprocess.run(
        [str(PYTHON), "-c", ASK_HEALTH, str(port), certificate, ""],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    answer = done.stdout.strip()
    if answer != "SERVING":
        last = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        raise RuntimeError(f"the health service says {answer or last[0]}, not SERVING")
    say("the health service says SERVING")
