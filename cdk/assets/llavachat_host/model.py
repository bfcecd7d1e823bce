"""The model's weights: onto the fastest disk, from the nearest place that has them.

The place is laid out as a Hugging Face hub cache, which the server reads offline. A manifest of
names and sizes is written last, here and in the bucket: without it a copy is not whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from llavachat_host import layout
from llavachat_host.machine import find_instance_disk, free_gib
from llavachat_host.options import Need, Options, write_whole
from llavachat_host.steps import HostError, Steps, probe, run

MANIFEST = "llavachat-manifest.json"
SPARE_GIB = 1.0
PAUSES = (5.0, 15.0, 45.0)
"""Seconds between one try and the next where somebody waits for the end."""

BOOT_PAUSES = (*PAUSES, 120.0, 300.0, *[600.0] * 7)
"""The same at a machine's start, which nobody repeats; in all less than its unit's time."""

PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
FETCH = """
import json, sys
from huggingface_hub import snapshot_download
model, revision, cache, patterns = json.loads(sys.argv[1])
snapshot_download(model, revision=revision, cache_dir=cache, allow_patterns=patterns)
"""


def prepare_model(
    options: Options, python: Path, steps: Steps, pauses: Sequence[float] = PAUSES
) -> None:
    """Everything that must be there before the server loads.

    Args:
        options: this host's.
        python: of an environment with the hub's library.
        steps: the account.
        pauses: seconds to wait after a try that failed; the last one is followed by the last try.

    Raises:
        HostError: the weights can not be brought.
    """
    wake_gpu(steps)
    need = options.need
    if not need.model:
        steps.say(f"model: {options.profile} comes with the release")
        return
    place_hub(steps)
    snapshot = find_snapshot(need)
    if is_whole(snapshot):
        steps.say(f"model: {need.model} is there already")
        return
    if (free := free_gib(snapshot)) < need.weights + SPARE_GIB:
        raise HostError(
            f"disk: {free:.1f} GiB free for {snapshot.resolve()}; {need.model} needs "
            f"{need.weights + SPARE_GIB:.1f} GiB"
        )
    for number, pause in enumerate(pauses, 1):
        try:
            bring(options, snapshot, python, steps)
        except HostError as error:
            steps.say(f"model: try {number} of {len(pauses) + 1}: {error}")
            steps.say(f"model: tried again in {pause:g} s")
            wait(pause)
        else:
            return
    bring(options, snapshot, python, steps)


def wait(seconds: float) -> None:
    """Give a network or a hub that is away its time."""
    time.sleep(seconds)


def bring(options: Options, snapshot: Path, python: Path, steps: Steps) -> None:
    """One try: from the bucket, or else from the hub, and into the bucket then.

    Raises:
        HostError: neither has them; what has come stays for the next try.
    """
    need = options.need
    if options.weights and copy_from_bucket(options, snapshot, steps):
        return
    with steps.step(f"model from the hub: {need.model}"):
        fetch_from_hub(need, python)
        write_manifest(snapshot)
    if options.weights:
        mirror(options, snapshot, steps)


def wake_gpu(steps: Steps) -> None:
    """Make the driver create its device files; inside its sandbox the server can not."""
    if probe(["nvidia-smi", "--list-gpus"]):
        if probe(["nvidia-modprobe", "-u", "-c", "0"]) is None:
            steps.say("GPU: nvidia-modprobe is missing; /dev/nvidia-uvm may be, too")
        steps.say("GPU: awake")


def place_hub(steps: Steps) -> None:
    """Let the hub's folder lead to the fastest disk."""
    layout.CACHE.mkdir(parents=True, exist_ok=True)
    disk = find_instance_disk()
    if disk is None or not (disk.mountpoint or disk.is_blank):
        target = layout.CACHE / "hub-on-system-disk"
    else:
        mountpoint = Path(disk.mountpoint or layout.FAST_DISK)
        if not disk.mountpoint:
            with steps.step(f"instance disk {disk.device}"):
                mount_blank(disk.device, mountpoint)
        target = mountpoint / "llavachat-hub"
    target.mkdir(parents=True, exist_ok=True)
    draft = layout.HUB.with_name("hub.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(layout.HUB)
    steps.say(f"model: kept in {target}")


def mount_blank(device: str, mountpoint: Path) -> None:
    """Make a file system on a blank disk and mount it."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    run(["mkfs.ext4", "-q", "-E", "nodiscard", device], failure=f"{device} can not be formatted")
    run(
        ["mount", "-o", "nodev,nosuid,noexec,noatime", device, mountpoint],
        failure=f"{device} can not be mounted",
    )


def find_snapshot(need: Need) -> Path:
    """The folder of a model's files in the hub's layout."""
    folder = "models--" + need.model.replace("/", "--")
    return layout.HUB / folder / "snapshots" / need.revision


def list_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file, by name."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def write_manifest(snapshot: Path) -> None:
    """Say that a copy is whole."""
    write_whole(snapshot / MANIFEST, json.dumps(list_sizes(snapshot), indent=1) + "\n")


def is_whole(snapshot: Path) -> bool:
    """Whether every file of the manifest is there in its size, with weights among them."""
    manifest = snapshot / MANIFEST
    if not manifest.is_file():
        return False
    expected: dict[str, int] = json.loads(manifest.read_text())
    actual = list_sizes(snapshot)
    return any(name.endswith(".safetensors") for name in expected) and all(
        actual.get(name) == size for name, size in expected.items()
    )


def keep_whole_files(snapshot: Path, manifest: Path) -> None:
    """Remove what a manifest does not have in that size: the hub's library takes any file for whole
    that is there."""
    expected: dict[str, int] = json.loads(manifest.read_text())
    for name, size in list_sizes(snapshot).items():
        if expected.get(name) != size:
            (snapshot / name).unlink()


def name_prefix(options: Options) -> str:
    """Where a model lies in the bucket."""
    need = options.need
    return f"{options.weights.rstrip('/')}/{need.model}/{need.revision}"


def copy_from_bucket(options: Options, snapshot: Path, steps: Steps) -> bool:
    """Copy the mirrored weights; whether there was a mirror, and its copy is whole."""
    prefix = name_prefix(options)
    snapshot.mkdir(parents=True, exist_ok=True)
    # The manifest comes last and goes last: a mirror without it is still being written.
    draft = snapshot.with_name(f"{snapshot.name}.{MANIFEST}")
    if probe(["aws", "s3", "cp", "--only-show-errors", f"{prefix}/{MANIFEST}", draft]) is None:
        steps.say(f"model: no mirror at {prefix}")
        return False
    try:
        with steps.step(f"model from {prefix}"):
            sync: list[str | Path] = ["aws", "s3", "sync", "--only-show-errors"]
            run(
                [*sync, "--exclude", MANIFEST, prefix, snapshot],
                failure="the mirrored weights can not be copied",
            )
    except HostError as error:
        steps.say(f"model: {error}")
    keep_whole_files(snapshot, draft)
    draft.replace(snapshot / MANIFEST)
    if is_whole(snapshot):
        return True
    (snapshot / MANIFEST).unlink()
    steps.say("model: the mirror's copy is not whole; the hub is asked for what is missing")
    return False


def fetch_from_hub(need: Need, python: Path) -> None:
    """Fetch the pinned revision; interrupted, it goes on with the files that had not come whole."""
    # The hub's library never comes back to a half file of a process that was killed.
    for half in find_snapshot(need).parents[1].glob("blobs/*.incomplete"):
        half.unlink()
    arguments = json.dumps([need.model, need.revision, str(layout.HUB), PATTERNS])
    run([python, "-c", FETCH, arguments], failure=f"{need.model} can not be fetched from the hub")


def mirror(options: Options, snapshot: Path, steps: Steps) -> None:
    """Copy the weights into the bucket for the next machine; trouble here stops nobody."""
    prefix = name_prefix(options)
    try:
        with steps.step(f"mirror to {prefix}"):
            run(
                [
                    "aws",
                    "s3",
                    "sync",
                    "--only-show-errors",
                    "--exclude",
                    MANIFEST,
                    snapshot,
                    prefix,
                ],
                failure="the weights can not be mirrored",
            )
            run(
                [
                    "aws",
                    "s3",
                    "cp",
                    "--only-show-errors",
                    snapshot / MANIFEST,
                    f"{prefix}/{MANIFEST}",
                ],
                failure="the weights can not be mirrored",
            )
    except HostError as error:
        steps.say(f"model: {error}; the next machine will ask the hub again")
