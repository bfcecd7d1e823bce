"""Calls to AWS, through its command line; the machine's identity, from its metadata service."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from typing import Any

METADATA = "http://169.254.169.254/latest"
POLL_SECONDS = 3.0


class CallFailed(Exception):
    """The AWS command line refused or failed; the text is its own last line."""


def call(
    service: str, operation: str, *arguments: str, attempts: int = 3, seconds: float = 60
) -> Any:
    """One call; its answer as parsed JSON, None if it has none.

    Args:
        arguments: the command line's further words.
        attempts: tries in all, two seconds apart; calls here are safe to repeat.
        seconds: the longest that one try may take; by itself the command line tries for minutes.

    Raises:
        CallFailed: the last try failed.
    """
    command = ["aws", service, operation, *arguments, "--output", "json"]
    for attempt in range(attempts):
        if attempt:
            time.sleep(2)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            lines = [f"no end after {seconds:.0f} s"]
            continue
        except OSError as error:
            lines = [str(error)]
            continue
        if done.returncode == 0:
            return json.loads(done.stdout) if done.stdout.strip() else None
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    raise CallFailed(f"aws {service} {operation}: {lines[-1]}")


def wait_for(what: str, is_so: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so.

    Raises:
        CallFailed: it is not after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() >= deadline:
            raise CallFailed(f"{what}: not so after {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def read_instance_id() -> str:
    """This machine's id, by version 2 of the metadata service."""
    request = urllib.request.Request(
        f"{METADATA}/api/token",
        method="PUT",
        headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        token = answer.read().decode()
    request = urllib.request.Request(
        f"{METADATA}/meta-data/instance-id", headers={"X-aws-ec2-metadata-token": token}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())
