"""The first boot's log: each line with its stage and time, on the console and in CloudWatch.

Lines are sent in the background every two seconds, so that who deploys can follow. Trouble with
sending never fails a boot.
"""

from __future__ import annotations

import json
import threading
import time

from firstboot.account import CallFailed, call

SEND_SECONDS = 2.0
MAX_BATCH = 500


class Journal:
    """A log with stages.

    Args:
        group: name of the log group; made if absent.
        stream: name of the stream, one for each machine.
        retention_days: how long the group keeps its lines.
    """

    def __init__(self, group: str, stream: str, retention_days: int) -> None:
        self.group = group
        self.stream = stream
        self.retention_days = retention_days
        self.stage = "start"
        self.began = time.monotonic()
        self.lines: list[dict[str, object]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.sender = threading.Thread(target=self.send_until_closed, daemon=True)
        self.sender.start()

    def enter(self, stage: str) -> None:
        """Begin a stage."""
        self.stage = stage
        self.write("begins")

    def write(self, message: str) -> None:
        """Add a line."""
        text = f"{time.monotonic() - self.began:7.1f} s  {self.stage}: {message}"
        print(text, flush=True)
        with self.lock:
            self.lines.append({"timestamp": int(time.time() * 1000), "message": text})

    def close(self) -> None:
        """Send what is left; waits up to 20 seconds."""
        self.closing.set()
        self.sender.join(timeout=20)

    def send_until_closed(self) -> None:
        """The background's work."""
        self.open_stream()
        while not self.closing.wait(SEND_SECONDS):
            self.send()
        self.send()

    def open_stream(self) -> None:
        """Make group and stream; each may exist already."""
        group = ("--log-group-name", self.group)
        for operation, arguments in (
            ("create-log-group", ()),
            ("put-retention-policy", ("--retention-in-days", str(self.retention_days))),
            ("create-log-stream", ("--log-stream-name", self.stream)),
        ):
            try:
                call("logs", operation, *group, *arguments, attempts=1)
            except CallFailed as error:
                if "ResourceAlreadyExists" not in str(error):
                    print(f"log not sent: {error}", flush=True)

    def send(self) -> None:
        """Send the lines that wait, oldest first."""
        while True:
            with self.lock:
                batch = self.lines[:MAX_BATCH]
            if not batch:
                return
            try:
                call(
                    "logs",
                    "put-log-events",
                    "--log-group-name",
                    self.group,
                    "--log-stream-name",
                    self.stream,
                    "--log-events",
                    json.dumps(batch),
                )
            except CallFailed as error:
                print(f"log not sent: {error}", flush=True)
                if self.closing.is_set():
                    return
                return
            with self.lock:
                del self.lines[: len(batch)]
