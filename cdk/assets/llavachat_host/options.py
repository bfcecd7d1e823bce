"""What this host was told to be, kept in a file, so that an update need not be told again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from llavachat_host import layout
from llavachat_host.steps import HostError

OFF = "off"


@dataclass(frozen=True)
class Need:
    """What a profile needs of a machine, in GiB.

    `weights` is what the checkpoint takes on disk. `memory` is the machine's own memory while it
    loads; `gpu` is the GPU's memory by form of the weights.
    """

    weights: float
    memory: float
    gpu: dict[str, float]
    model: str = ""
    revision: str = ""


# GPU: weights in that form, one full context of keys and values, and 1.5 GiB of work space.
# The same figures as in the stack's table (`llavachat_cdk.machines`), and the models and revisions
# of the server's profiles; tests compare them.
NEEDS = {
    "shapes": Need(0, 1.5, {}),
    "llava-1.5-7b": Need(
        13.2,
        12,
        {"none": 16.7, "int8": 10.7, "nf4": 7.7},
        "llava-hf/llava-1.5-7b-hf",
        "b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
    ),
    "llava-1.5-13b": Need(
        24.9,
        14,
        {"none": 29.5, "int8": 17.7, "nf4": 11.9},
        "llava-hf/llava-1.5-13b-hf",
        "5dda2880bda009266dda7c4baff660b95ca64540",
    ),
}
DEFAULT_QUANTIZATION = {"shapes": "none", "llava-1.5-7b": "int8", "llava-1.5-13b": "nf4"}


@dataclass(frozen=True)
class Options:
    """One host's options.

    Args:
        profile: what to serve.
        quantization: form of the weights; empty for the profile's own.
        listen: HOST:PORT; beyond loopback it takes TLS and keys from the credentials folder.
        metrics_listen: HOST:PORT to answer Prometheus on, by the same rules; "off" for none.
        weights: ``s3://BUCKET[/PREFIX]`` that mirrors published weights; empty for none.
        idle_minutes: stop the machine after so long without a call; 0 for never.
        stop_command: what stops the machine.
    """

    profile: str = "shapes"
    quantization: str = ""
    listen: str = "127.0.0.1:50051"
    metrics_listen: str = "127.0.0.1:9464"
    weights: str = ""
    idle_minutes: float = 0
    stop_command: str = "systemctl poweroff"

    @property
    def need(self) -> Need:
        """What the profile needs."""
        return NEEDS[self.profile]

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can call."""
        return not self.open_addresses

    @property
    def open_addresses(self) -> dict[str, str]:
        """The addresses that other machines can reach, by option."""
        addresses = {"listen": self.listen}
        if self.metrics_listen != OFF:
            addresses["metrics-listen"] = self.metrics_listen
        return {
            name: address
            for name, address in addresses.items()
            if address.rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]")
        }

    def needs_restart(self, other: Options) -> bool:
        """Whether the service must start anew to follow other options."""
        # What only the idle stop reads can change at any time.
        followed = replace(self, idle_minutes=other.idle_minutes, stop_command=other.stop_command)
        return followed != other

    def check(self) -> None:
        """Refuse what can not be.

        Raises:
            HostError: names the option and what is allowed.
        """
        if self.profile not in NEEDS:
            raise HostError(f"profile: {self.profile!r} given; allowed: {', '.join(NEEDS)}")
        if self.quantization not in ("", "none", "int8", "nf4"):
            raise HostError(f"quantization: {self.quantization!r} given; allowed: none, int8, nf4")
        for name, address in (("listen", self.listen), ("metrics-listen", self.metrics_listen)):
            if name != "listen" and address == OFF:
                continue
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                other = "" if name == "listen" else f", or {OFF}"
                raise HostError(
                    f"{name}: {address!r} given; allowed: HOST:PORT, port 1 to 65535{other}"
                )
        if self.weights and not self.weights.startswith("s3://"):
            raise HostError(f"weights: {self.weights!r} given; allowed: s3://BUCKET/PREFIX")
        if self.idle_minutes < 0:
            raise HostError(f"idle-minutes: {self.idle_minutes} given; allowed: 0 (never) or more")


def load_options(path: Path = layout.OPTIONS) -> Options:
    """The options kept from the last run; the defaults if there was none.

    Raises:
        HostError: the file was edited into something else.
    """
    if not path.exists():
        return Options()
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
        known = {field.name for field in fields(Options)}
        options = replace(Options(), **{key: kept[key] for key in known & kept.keys()})
    except (ValueError, TypeError, AttributeError) as error:
        raise HostError(f"{path} can not be read as options; correct or delete it") from error
    options.check()
    return options


def save_options(options: Options, path: Path = layout.OPTIONS) -> None:
    """Keep the options, whole or not at all."""
    write_whole(path, json.dumps(asdict(options), indent=2) + "\n")


def write_whole(path: Path, text: str, mode: int = 0o644) -> bool:
    """Write a file so that readers see the old text or the new, never half.

    Returns:
        Whether the text changed.
    """
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=mode)
    draft.chmod(mode)
    draft.write_text(text)
    draft.replace(path)
    return True
