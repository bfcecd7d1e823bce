"""Logs and metrics off the machine: the journal into a file, the CloudWatch agent over both.

A machine without the agent serves all the same; the first boot's log then says what is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from string import Template

AGENT = Path("/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl")
HERE = Path(__file__).resolve().parent.parent
UNIT = "llavachat-journal.service"


def set_up(values: dict[str, str], say: Callable[[str], None]) -> None:
    """Start the journal's copy, and the agent where there is one.

    Args:
        values: what ``agent.json`` has placeholders for.
    """
    Path("/var/log/llavachat").mkdir(mode=0o750, exist_ok=True)
    shutil.copy(HERE / UNIT, "/etc/systemd/system")
    rotation = Path("/etc/logrotate.d")
    if rotation.is_dir():
        shutil.copy(HERE / "logrotate", rotation / "llavachat")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "--now", "--quiet", UNIT], check=True)
    if not AGENT.exists() and shutil.which("dnf"):
        say("installing the CloudWatch agent")
        subprocess.run(
            ["dnf", "-q", "-y", "install", "amazon-cloudwatch-agent"],
            check=False,
            capture_output=True,
        )
    if not AGENT.exists():
        say(f"no CloudWatch agent at {AGENT}: logs, GPU and disk metrics will be missing")
        return
    settings = Path("/etc/llavachat/agent.json")
    settings.write_text(Template((HERE / "agent.json").read_text()).safe_substitute(values))
    done = subprocess.run(
        [str(AGENT), "-a", "fetch-config", "-m", "ec2", "-s", "-c", f"file:{settings}"],
        capture_output=True,
        text=True,
        check=False,
    )
    tail = (done.stdout + done.stderr).strip().splitlines()[-1:] or [""]
    say("CloudWatch agent started" if done.returncode == 0 else f"CloudWatch agent: {tail[0]}")
