"""The first boot, stage by stage: ``python3 -m firstboot RELEASE_FOLDER DEPLOYMENT_FILE``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from firstboot import credentials, limit, safekeeping, sessions, telemetry, volume
from firstboot.account import CallFailed, call, read_instance_id
from firstboot.handover import Handover
from firstboot.journal import Journal
from firstboot.limit import Limit, TimeIsUp
from firstboot.service import (
    CHATS,
    CREDENTIALS,
    UNITS,
    check_health,
    install,
    prepare,
    stop,
)


class FirstBoot:
    """One machine's way from its release to its first answer.

    Args:
        release: folder that the release was unpacked into.
        deployment: what the stack says, see `Host.write_user_data`.
        instance: this machine's id.
    """

    def __init__(self, release: Path, deployment: dict[str, Any], instance: str) -> None:
        self.release = release
        self.deployment = deployment
        self.instance = instance
        self.journal = Journal(
            deployment["install_log"], instance, int(deployment["retention_days"])
        )
        self.handover = Handover(deployment["volume"], instance, self.journal.write)
        self.made: dict[str, str] | None = None

    def run(self) -> bool:
        """Do everything; whether the service is healthy at the end. CloudFormation knows then."""
        self.journal.write(f"first boot of {self.instance}")
        seconds = limit.reckon(
            int(self.deployment["install_minutes"]), limit.find_launch(self.instance)
        )
        deadline = time.monotonic() + seconds
        for_preparing = limit.reckon_preparation(seconds)
        try:
            # While the machine before this one serves: what fails here costs nobody an answer.
            with Limit(for_preparing, self.describe_end("of preparing ", for_preparing)):
                self.prepare()
            with Limit(max(deadline - time.monotonic(), 1), self.describe_end("", seconds)):
                self.take_over()
            # Not within the limit: what it does is not to be broken off half-way.
            self.commit()
        except Exception as error:
            self.journal.write(f"FAILED: {describe(error)}")
            self.give_up()
            # CloudFormation takes the machine away as soon as it hears.
            self.journal.flush()
            self.report("FAILURE")
            # Nobody takes away a group's later machine: that it has no server is to be noticed.
            telemetry.watch_server(self.list_telemetry(), self.journal.write)
            return False
        else:
            self.report("SUCCESS")
            return True
        finally:
            self.journal.close()

    def describe_end(self, what: str, seconds: float) -> str:
        """What is said when time is up."""
        allowed = int(self.deployment["install_minutes"])
        return f"no end {what}after {seconds / 60:.0f} minutes; install_minutes is {allowed}"

    def prepare(self) -> None:
        """The stages that need nothing of the machine before this one."""
        it, say = self.deployment, self.journal.write
        self.journal.enter("credentials")
        self.made = credentials.bring(
            CREDENTIALS, it["api_key"], it["certificate"], it["domain"], say
        )
        # What has read secrets has its rights.
        sessions.try_again()
        self.journal.enter("telemetry")
        telemetry.set_up(self.list_telemetry(), say)
        self.journal.enter("prepare")
        prepare(self.release, it, say)

    def take_over(self) -> None:
        """The stages from when the machine before this one is stopped."""
        it, say = self.deployment, self.journal.write
        self.journal.enter("chats")
        self.handover.claim()
        volume.mount(volume.find_device(it["volume"]), CHATS, it["snapshot"], say)
        safekeeping.keep(CHATS, self.release, self.instance, say)
        self.journal.enter("install")
        install(self.release, it, say)
        self.journal.enter("health")
        check_health(int(it["port"]), say)
        telemetry.watch_server(self.list_telemetry(), say)

    def list_telemetry(self) -> dict[str, str]:
        """What the agent is told."""
        it = self.deployment
        return {"name": it["name"], "service_log": it["service_log"], "chats_folder": str(CHATS)}

    def commit(self) -> None:
        """The service is well: let clients know it, and give up the way back."""
        if self.made:
            credentials.write_secret(self.deployment["certificate"], json.dumps(self.made))
            self.journal.write("certificate: kept for clients and later machines")
        # Last: what this machine has answered must not be gone back from.
        safekeeping.drop(CHATS)
        self.journal.enter("done")

    def give_up(self) -> None:
        """Say why, and step back; within the time that is kept for it, and without an error."""
        seconds = limit.SPARE_SECONDS - limit.SIGNAL_SECONDS
        try:
            with Limit(seconds, "stepping back came to no end"):
                self.explain()
                self.step_back()
        except Exception as error:
            self.journal.write(f"not stepped back to the end: {describe(error)}")

    def explain(self) -> None:
        """The service's last words into the log."""
        units = [f"--unit={unit}" for unit in UNITS]
        command = ["journalctl", "--no-pager", "--output=short-iso", "--lines=60", *units]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self.journal.write(f"the service's last words are missing: {error}")
            return
        for line in done.stdout.splitlines():
            self.journal.write(f"| {line}")

    def step_back(self) -> None:
        """Leave the chats, as they were, to the machine before this one."""
        stop()
        try:
            safekeeping.put_back(CHATS, self.journal.write)
        except OSError as error:
            # The machine before this one does it as well when it starts.
            self.journal.write(f"the chats could not be put back: {error}")
        volume.unmount(CHATS, self.journal.write)
        self.handover.give_back()

    def report(self, status: str) -> None:
        """Signal CloudFormation; a machine that a group brought later has nobody waiting."""
        try:
            call(
                *("cloudformation", "signal-resource", "--status", status),
                *("--stack-name", self.deployment["stack"]),
                *("--logical-resource-id", self.deployment["resource"]),
                *("--unique-id", self.instance),
            )
            self.journal.write(f"signalled {status}")
        except CallFailed as error:
            self.journal.write(f"nobody took the signal {status}: {error}")


def describe(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, subprocess.CalledProcessError):
        words = error.stderr.strip().splitlines()[-1:] if error.stderr else []
        return f"{error.cmd[0]} ended with {error.returncode}. {' '.join(map(str, words))}"
    if isinstance(error, (CallFailed, TimeIsUp, TimeoutError, RuntimeError)):
        return str(error)
    return traceback.format_exc().strip().replace("\n", " / ")


def main() -> int:
    """Read the deployment and boot."""
    release, file = Path(sys.argv[1]), Path(sys.argv[2])
    deployment = json.loads(file.read_text())
    boot = FirstBoot(release, deployment, read_instance_id())
    return 0 if boot.run() else 1


if __name__ == "__main__":
    sys.exit(main())
