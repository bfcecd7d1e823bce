"""The first boot's log: each line with its stage and time, on the console and in CloudWatch.

Lines are sent in the background every two seconds, so that who deploys can follow. Trouble with
sending never fails a boot, and never ends the sending.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time

from firstboot.account import CallFailed, call

SEND_SECONDS = 2.0
FLUSH_SECONDS = 10.0
CLOSE_SECONDS = 20.0
MAX_EVENTS = 10_000
MAX_BATCH_BYTES = 1_048_576
EVENT_BYTES = 26
"""What each event counts beyond its text.
Source: CloudWatch Logs, PutLogEvents, for all of these."""

MAX_LINE_BYTES = 200_000
"""Longer lines are cut; CloudWatch takes 256 KiB."""

LAST_TRIES = 3


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
        self.newest_milliseconds = 0
        self.lock = threading.Lock()
        self.wanted = threading.Event()
        self.closing = False
        self.sender = threading.Thread(target=self.send_until_closed, daemon=True)
        self.sender.start()

    def enter(self, stage: str) -> None:
        """Begin a stage."""
        self.stage = stage
        self.write("begins")

    def write(self, message: str) -> None:
        """Add a line."""
        text = f"{time.monotonic() - self.began:7.1f} s  {self.stage}: {message}"
        text = text.encode(errors="replace")[:MAX_LINE_BYTES].decode(errors="ignore")
        print(text, flush=True)
        with self.lock:
            # A young machine's clock is set anew, and a batch that goes back in time is refused.
            self.newest_milliseconds = max(self.newest_milliseconds, int(time.time() * 1000))
            self.lines.append({"timestamp": self.newest_milliseconds, "message": text})

    def flush(self) -> None:
        """Send what is there; waits up to 10 seconds."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while self.lines and time.monotonic() < deadline:
            self.wanted.set()
            time.sleep(0.1)

    def close(self) -> None:
        """Send what is left; waits up to 20 seconds. Lines that come later are only printed."""
        self.closing = True
        self.wanted.set()
        self.sender.join(timeout=CLOSE_SECONDS)

    def send_until_closed(self) -> None:
        """The background's work."""
        self.open_stream()
        while not self.closing:
            self.wanted.wait(SEND_SECONDS)
            self.wanted.clear()
            self.send()
        for _ in range(LAST_TRIES):
            if self.send():
                return

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
            except (CallFailed, OSError) as error:
                if "ResourceAlreadyExists" not in str(error):
                    print(f"log not sent: {error}", flush=True)

    def take_batch(self) -> list[dict[str, object]]:
        """As many of the lines that wait, oldest first, as go in one call."""
        with self.lock:
            size = count = 0
            for line in self.lines[:MAX_EVENTS]:
                size += len(str(line["message"]).encode()) + EVENT_BYTES
                if size > MAX_BATCH_BYTES:
                    break
                count += 1
            return self.lines[:count]

    def send(self) -> bool:
        """Send the lines that wait, oldest first; whether none is left."""
        while batch := self.take_batch():
            try:
                self.put(batch)
            except (CallFailed, OSError) as error:
                print(f"log not sent: {error}", flush=True)
                if "ResourceNotFound" in str(error):
                    # The role's rights were not in force yet when it was to be made.
                    self.open_stream()
                if "InvalidParameter" not in str(error):
                    return False
                # Never to be taken: what comes after it is worth more.
            with self.lock:
                del self.lines[: len(batch)]
        return True

    def put(self, batch: list[dict[str, object]]) -> None:
        """One call. The lines go by a file: a word of a command line has 128 KiB at most."""
        # In memory, since the log is to tell of a full disk, too.
        with tempfile.NamedTemporaryFile("w", dir="/run", suffix=".json") as file:
            json.dump(batch, file)
            file.flush()
            names = ("--log-group-name", self.group, "--log-stream-name", self.stream)
            call("logs", "put-log-events", *names, "--log-events", f"file://{file.name}")
