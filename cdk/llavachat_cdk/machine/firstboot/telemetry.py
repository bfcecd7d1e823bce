"""Logs and metrics off the machine: the journal into a file, the CloudWatch agent over both.

A machine without the agent serves all the same; the first boot's log then says what is missing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from string import Template

AGENT = Path("/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl")
HERE = Path(__file__).resolve().parent.parent
UNIT = "llavachat-journal.service"
SETTINGS = Path("/etc/llavachat/agent.json")
AGENT_SECONDS = 60
PROCESSES = "procstat"
"""The plugin that counts the server's processes; it counts none, too."""
GPU = "nvidia_gpu"
GPU_TOOL = Path("/usr/bin/nvidia-smi")
"""What that plugin asks, GPU or not. An agent that is told of the plugin and does not find the tool
ends at once, logs and all. Source: its own `checkRightForBinariesFileWithInputPlugins`."""


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
    # An alarm rings over a server that is not there, and until the first answer there is none.
    start_agent(values, say, without=PROCESSES)


def watch_server(values: dict[str, str], say: Callable[[str], None]) -> None:
    """Have the agent say from now on, also after a reboot, whether the server is there."""
    if AGENT.exists():
        start_agent(values, say)


def start_agent(values: dict[str, str], say: Callable[[str], None], without: str = "") -> None:
    """Start the agent, or have it read its settings anew.

    Args:
        without: the plugin to leave out.
    """
    settings = json.loads(Template((HERE / "agent.json").read_text()).safe_substitute(values))
    settings["metrics"]["metrics_collected"].pop(without, None)
    if not GPU_TOOL.exists():
        settings["metrics"]["metrics_collected"].pop(GPU, None)
    words = [str(AGENT), "-a", "fetch-config", "-m", "ec2", "-s", "-c", f"file:{SETTINGS}"]
    try:
        SETTINGS.write_text(json.dumps(settings, indent=2) + "\n")
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=AGENT_SECONDS
        )
    except subprocess.TimeoutExpired:
        say(f"CloudWatch agent: no end after {AGENT_SECONDS} s")
        return
    except OSError as error:
        say(f"CloudWatch agent: {error}")
        return
    if done.returncode:
        tail = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["it does not say why"]
        say(f"CloudWatch agent: {tail[0]}")
    else:
        say(f"CloudWatch agent started{', not counting servers yet' if without else ''}")
