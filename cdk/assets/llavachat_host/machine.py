"""Is this machine fit? Everything that is missing is told at once, each with its remedy."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from llavachat_host import layout
from llavachat_host.options import DEFAULT_QUANTIZATION, Options
from llavachat_host.steps import probe

GIB = 1024**3
SYSTEMD_RUNS = Path("/run/systemd/system")
"""There where systemd is process 1. Source: sd_booted(3)."""
MIN_PYTHON = (3, 11)
MIN_SYSTEMD = 248
"""The first that can keep a service from running what it writes (NoExecPaths=); credentials came
in 247. Source: systemd's NEWS."""
MIN_DRIVER = 580
"""The first driver for CUDA 13, which the pinned torch is built with.
Source: NVIDIA, CUDA 13.0 release notes, table of minimum driver versions."""
LIBRARIES_GIB = {"gpu": 12.0, "cpu": 2.5}
"""Room for the libraries while they are unpacked: torch with CUDA, or for the CPU."""
KNOWN_SYSTEMS = {"debian 12", "ubuntu 22.04", "ubuntu 24.04", "amzn 2023"}
PYTHON_PACKAGES = {
    "amzn 2023": "dnf install -y python3.12",
    "ubuntu 22.04": "apt-get install -y python3.11 python3.11-venv",
    "ubuntu 24.04": "apt-get install -y python3.12 python3.12-venv",
    "debian 12": "apt-get install -y python3.11 python3.11-venv",
}


@dataclass(frozen=True)
class Gpu:
    """The machine's first NVIDIA GPU."""

    name: str
    memory_gib: float
    driver: str


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes:
        system: distribution and its version, such as "debian 12".
        python: interpreter for the server; None if there is none.
        gpu: None if there is none, or its driver does not answer.
    """

    system: str
    python: Path | None
    gpu: Gpu | None
    has_nvidia_device: bool
    systemd: int
    memory_gib: float
    architecture: str


def read_system(text: str) -> str:
    """Distribution and version from os-release's text."""
    values = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', text, re.M))
    return f"{values.get('ID', 'unknown')} {values.get('VERSION_ID', '')}".strip()


def find_python(folders: str = "/usr/local/bin:/usr/bin:/bin") -> Path | None:
    """The newest interpreter that can run the server and make virtual environments.

    Debian and Ubuntu ship interpreters whose venv module lacks what it needs (ensurepip) until
    another package is there; such a one is passed over.

    Args:
        folders: where to look, divided by colons.
    """
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        path = shutil.which(name, path=folders)
        if path is None:
            continue
        code = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {MIN_PYTHON})"
        if probe([path, "-c", code]) is not None:
            return Path(path)
    return None


def find_gpu() -> Gpu | None:
    """The first GPU, by its driver's own tool."""
    query = "--query-gpu=name,memory.total,driver_version"
    answer = probe(["nvidia-smi", query, "--format=csv,noheader,nounits"])
    if not answer or not answer.strip():
        return None
    words = [part.strip() for part in answer.splitlines()[0].split(",")]
    try:
        name, mebibytes, driver = words
        return Gpu(name, float(mebibytes) / 1024, driver)
    except ValueError:
        # A card that shares the machine's memory has "[N/A]" of its own.
        return None


def has_nvidia_device(folder: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether a GPU is plugged in, driver or not: PCI vendor 0x10de, display class 0x03."""
    for device in folder.glob("*"):
        try:
            vendor = (device / "vendor").read_text().strip()
            kind = (device / "class").read_text().strip()
        except OSError:
            continue
        if vendor == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def look() -> Machine:
    """Look at this machine."""
    version = re.search(r"systemd (\d+)", probe(["systemctl", "--version"]) or "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        system=read_system(Path("/etc/os-release").read_text()),
        python=find_python(),
        gpu=find_gpu(),
        has_nvidia_device=has_nvidia_device(),
        systemd=int(version.group(1)) if version else 0,
        memory_gib=memory / GIB,
        architecture=platform.machine(),
    )


def free_gib(path: Path) -> float:
    """Free room on the disk that holds a path, existing or not."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free / GIB


def list_faults(machine: Machine, options: Options, *, needs_libraries: bool) -> list[str]:
    """Everything that stands in the way, each as what is wrong and what to do."""
    faults = []
    if machine.architecture != "x86_64":
        faults.append(f"processor: {machine.architecture}; x86_64 is needed")
    if machine.systemd < MIN_SYSTEMD:
        faults.append(f"systemd: {machine.systemd or 'none'}; {MIN_SYSTEMD} or newer is needed")
    elif not SYSTEMD_RUNS.is_dir():
        faults.append("systemd: installed but not running; the service needs it as process 1")
    if machine.python is None:
        remedy = PYTHON_PACKAGES.get(machine.system, "install it with its venv module")
        faults.append(f"Python: 3.11 or newer with venv is needed; try: {remedy}")
    if machine.memory_gib < options.need.memory:
        faults.append(
            f"memory: {machine.memory_gib:.1f} GiB; {options.profile} needs "
            f"{options.need.memory:g} GiB to load"
        )
    if needs_libraries:
        room = LIBRARIES_GIB["gpu" if machine.has_nvidia_device else "cpu"]
        if (free := free_gib(layout.ROOT)) < room:
            faults.append(
                f"disk: {free:.1f} GiB free for {layout.ROOT}; the libraries need {room:g} GiB"
            )
    return faults + list_gpu_faults(machine, options)


def list_gpu_faults(machine: Machine, options: Options) -> list[str]:
    """What is wrong with the GPU for the profile; nothing for one that needs none."""
    if not options.need.gpu:
        return []
    if machine.gpu is None:
        if machine.has_nvidia_device:
            return [
                "GPU driver: a GPU is plugged in, but nvidia-smi does not answer; install "
                f"NVIDIA's driver {MIN_DRIVER} or newer, or use an image that has it"
            ]
        return [
            f"GPU: none is plugged in; {options.profile} needs one (an instance type such as "
            "g5.xlarge), the profile shapes does not"
        ]
    faults = []
    if int(machine.gpu.driver.split(".")[0]) < MIN_DRIVER:
        faults.append(
            f"GPU driver: {machine.gpu.driver}; the libraries need {MIN_DRIVER} (CUDA 13) or newer"
        )
    form = options.quantization or DEFAULT_QUANTIZATION[options.profile]
    need = options.need.gpu[form]
    if machine.gpu.memory_gib < need:
        faults.append(
            f"GPU memory: {machine.gpu.name} has {machine.gpu.memory_gib:.1f} GiB; "
            f"{options.profile} as {form} needs {need:g} GiB"
        )
    return faults


def describe(machine: Machine) -> str:
    """The machine in one line."""
    gpu = machine.gpu
    return ", ".join(
        [
            machine.system + ("" if machine.system in KNOWN_SYSTEMS else " (not one we know)"),
            f"systemd {machine.systemd}",
            f"Python at {machine.python}" if machine.python else "no Python 3.11",
            f"{machine.memory_gib:.1f} GiB of memory",
            f"{gpu.name} with {gpu.memory_gib:.1f} GiB, driver {gpu.driver}" if gpu else "no GPU",
        ]
    )


@dataclass(frozen=True)
class Disk:
    """A disk of the instance's own: fast, and empty after each stop."""

    device: str
    mountpoint: str
    is_blank: bool


def find_instance_disk(lsblk: str | None = None) -> Disk | None:
    """The instance's own NVMe disk, where the instance type has one.

    Args:
        lsblk: what ``lsblk --json`` printed; asked for if not given.
    """
    if lsblk is None:
        lsblk = probe(["lsblk", "--json", "--paths", "--output", "NAME,MODEL,MOUNTPOINT,FSTYPE"])
    for disk in json.loads(lsblk or '{"blockdevices": []}')["blockdevices"]:
        if "Instance Storage" not in (disk.get("model") or ""):
            continue
        for volume in [disk, *disk.get("children", [])]:
            if volume.get("mountpoint"):
                return Disk(volume["name"], volume["mountpoint"], is_blank=False)
        is_blank = not disk.get("fstype") and not disk.get("children")
        return Disk(disk["name"], "", is_blank=is_blank)
    return None
