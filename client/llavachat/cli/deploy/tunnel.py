"""``llavachat tunnel``: the machine's port on this machine, through Session Manager.

The session is asked for here, and carried by Amazon's own plugin.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.credentials import save_profile
from llavachat.cli.deploy.stack import Deployment, need_deployment
from llavachat.cli.deploy.toolkit import find_plugin
from llavachat.cli.failure import ExitCode, Failure
from llavachat.cli.output import say
from llavachat.cli.profiles import read_profiles
from llavachat.cli.state import find_state_folder

PORT = 50051
"""Where the service listens on its machine, and here if that port is free."""

OPEN_SECONDS = 30.0
CLOSE_SECONDS = 5.0
_POLL_SECONDS = 0.1
_DOCUMENT = "AWS-StartPortForwardingSession"


class NotConnected(Failure):
    """The machine's agent has not reached Session Manager, or no more."""


def tunnel(account: Account, name: str, *, port: int | None) -> ExitCode:
    """Keep the tunnel open until Ctrl-C, and use its server from now on.

    Raises:
        Failure: the machine does not run, the plugin is not there, or it opens nothing.
    """
    deployment = need_deployment(account, name)
    process, port = open_tunnel(account, deployment, port)
    try:
        profile = save_profile(account, deployment, f"localhost:{port}")
        say(f"localhost:{port} is {name} until Ctrl-C; `llavachat ask` uses it ({profile}).")
        code = process.wait()
    except KeyboardInterrupt:
        return ExitCode.OK
    finally:
        close(process)
    raise Failure(f"The tunnel ended (code {code}); open it again with `llavachat tunnel`.")


def open_tunnel(
    account: Account, deployment: Deployment, port: int | None, *, detached: bool = False
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the plugin, and wait until something listens on the port.

    Args:
        port: here. None: that of the last time, 50051, or a free one.
        detached: it outlives this process.

    Returns:
        The plugin's process, and the port.

    Raises:
        Failure: the machine does not run, the plugin is not there, or it opens nothing.
    """
    plugin = find_plugin()
    machine = deployment.machine
    if machine is None or machine.state != "running":
        raise Failure(
            f"The machine of {deployment.name} does not run; `llavachat start` wakes it.",
            ExitCode.UNAVAILABLE,
        )
    port = choose_port([read_port(deployment.name), PORT, 0] if port is None else [port])
    request = {
        "Target": machine.id,
        "DocumentName": _DOCUMENT,
        "Parameters": {"portNumber": [str(PORT)], "localPortNumber": [str(port)]},
    }
    client = account.client("ssm")
    try:
        answer = client.start_session(**request)
    except client.exceptions.TargetNotConnected:
        raise NotConnected(
            f"The machine of {deployment.name} has not reached Session Manager; one that was just "
            "started needs a minute.",
            ExitCode.UNAVAILABLE,
        ) from None
    session = {key: answer[key] for key in ("SessionId", "TokenValue", "StreamUrl")}
    # The plugin takes the session from a variable, so that no process list shows its token.
    variable = "AWS_SSM_START_SESSION_RESPONSE"
    arguments = [plugin, variable, account.region, "StartSession"]
    arguments += [account.session.profile_name, json.dumps(request), client.meta.endpoint_url]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - Amazon's plugin
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, variable: json.dumps(session)},
            start_new_session=True,
        )
        try:
            _wait(process, port)
        except BaseException as error:
            close(process)
            output.seek(0)
            said = output.read().decode(errors="replace").split("\n")
            if isinstance(error, Failure):
                last = [line.strip() for line in said if line.strip()][-1:]
                raise Failure(f"{error} {' '.join(last)}".strip()) from None
            raise
    if detached:
        remember(deployment, process.pid)
    return process, port


def choose_port(candidates: Sequence[int]) -> int:
    """The first port that is free; 0 is any.

    Raises:
        Failure: none of them is.
    """
    for candidate in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Failure(f"Port {candidates[0]} of this machine is taken; give another with --port.")


def read_port(name: str) -> int:
    """The port of the last tunnel, by which `llavachat ask -c` knows the last chat; else 50051."""
    saved = read_profiles().servers.get(name)
    port = saved.address.rpartition(":")[2] if saved is not None else ""
    return int(port) if port.isdigit() else PORT


def close(process: subprocess.Popen[bytes]) -> None:
    """End the plugin in order; it ends its session."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def remember(deployment: Deployment, process_id: int) -> None:
    """Keep the number of a tunnel that stays open, for `forget`."""
    _find_note(deployment.name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _find_note(deployment.name).write_text(str(process_id))


def forget(name: str) -> None:
    """Close a tunnel that was left open, if it is still the plugin."""
    note = _find_note(name)
    with contextlib.suppress(OSError, ValueError):
        process_id = int(note.read_text())
        if b"session-manager-plugin" in Path(f"/proc/{process_id}/cmdline").read_bytes():
            os.kill(process_id, signal.SIGTERM)
            for _ in _until(CLOSE_SECONDS):
                os.kill(process_id, 0)
    note.unlink(missing_ok=True)


def _find_note(name: str) -> Path:
    return find_state_folder() / f"{name}.tunnel"


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in _until(OPEN_SECONDS):
        if process.poll() is not None:
            raise Failure(f"The Session Manager plugin ended with code {process.returncode}.")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
    raise Failure(f"The Session Manager plugin opened no port within {OPEN_SECONDS:g} s.")


def _until(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(_POLL_SECONDS)
