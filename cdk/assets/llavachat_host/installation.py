"""Install, update and step back: each leaves a running service behind, or says why it can not.

An update builds everything beside the running release. Only then is the service restarted; if the
new release does not answer, the old one is put back and answers again.
"""

from __future__ import annotations

from pathlib import Path

from llavachat_host import database, layout
from llavachat_host.machine import describe, list_faults, look
from llavachat_host.model import prepare_model
from llavachat_host.options import Options, load_options, save_options
from llavachat_host.release import (
    Source,
    build_environment,
    build_release,
    drop_old,
    environment_folder,
    is_complete,
    point,
    read_link,
)
from llavachat_host.steps import HostError, Steps, hold_lock
from llavachat_host.units import (
    enable_units,
    install_units,
    read_property,
    restart_service,
    stop_service,
)


def check_machine(source: Source | None, options: Options, steps: Steps) -> Path:
    """Look at the machine; the interpreter to use.

    Raises:
        HostError: lists everything that is missing.
    """
    machine = look()
    steps.say(f"machine: {describe(machine)}")
    needs_libraries = True
    if source is not None and machine.python is not None:
        needs_libraries = not is_complete(environment_folder(source, machine.python))
    faults = list_faults(machine, options, needs_libraries=needs_libraries)
    if faults:
        raise HostError(
            "this machine can not run llavachat:" + "".join(f"\n    {fault}" for fault in faults)
        )
    assert machine.python is not None
    return machine.python


def prepare(folder: Path, options: Options, steps: Steps) -> None:
    """Have everything at hand that `install` needs, beside whatever runs; nothing is switched.

    Raises:
        HostError: the machine is not fit, or something can not be brought.
    """
    options.check()
    with hold_lock(layout.LOCK, steps):
        build(folder, options, steps)


def install(folder: Path, options: Options, steps: Steps) -> None:
    """Bring the release in `folder` to answer on this machine; first time or update."""
    options.check()
    with hold_lock(layout.LOCK, steps):
        release = build(folder, options, steps)
        running = read_link(layout.CURRENT)
        switch(running, release, options, steps)
        if running is not None and running != release:
            point(layout.PREVIOUS, running)
        keep = {release, read_link(layout.PREVIOUS)} - {None}
        drop_old({folder for folder in keep if folder is not None}, steps)


def build(folder: Path, options: Options, steps: Steps) -> Path:
    """All that may take long, while the old release still serves; the release's own folder."""
    source = Source.find(folder)
    python = check_machine(source, options, steps)
    running = read_link(layout.CURRENT)
    steps.say(
        f"release {source.name}, "
        + (f"now running {running.name}" if running else "the first here")
    )
    for path in (layout.RELEASES, layout.ENVIRONMENTS, layout.CONFIGURATION):
        path.mkdir(parents=True, exist_ok=True)
    layout.CREDENTIALS.mkdir(mode=0o700, exist_ok=True)
    release = build_release(source, build_environment(source, python, steps), steps)
    prepare_model(options, release / "venv" / "bin" / "python", steps)
    return release


def roll_back(steps: Steps) -> None:
    """Return to the release before this one.

    Raises:
        HostError: there is none.
    """
    with hold_lock(layout.LOCK, steps):
        running, previous = read_link(layout.CURRENT), read_link(layout.PREVIOUS)
        if previous is None or previous == running:
            raise HostError("there is no release to return to")
        switch(running, previous, load_options(), steps)
        if running is not None:
            point(layout.PREVIOUS, running)


def switch(running: Path | None, release: Path, options: Options, steps: Steps) -> None:
    """Let a complete release take over.

    Raises:
        HostError: it does not answer; the release that ran before answers again, on the chats as
            they were.
    """
    kept = load_options()
    has_copy = database.needs_copy(running, release)
    if has_copy:
        database.check_room()
        stop_service(steps)
        database.keep(steps)
    try:
        use(release, options, steps)
    except HostError as error:
        if running is None:
            raise
        steps.say(str(error))
        with steps.step(f"back to {running.name}"):
            if has_copy:
                stop_service(steps)
                database.put_back(steps)
            use(running, kept, steps)
        raise HostError(
            f"{release.name} does not answer, see above; {running.name} runs as before"
        ) from error
    database.drop()


def use(release: Path, options: Options, steps: Steps) -> None:
    """Point to a release, and restart the service on it."""
    is_new = read_link(layout.CURRENT) != release or load_options().needs_restart(options)
    point(layout.CURRENT, release)
    # The model's unit reads the options.
    save_options(options)
    is_new = install_units(release, options) or is_new
    enable_units(options)
    if not is_new and read_property(layout.SERVICE, "ActiveState") == "active":
        steps.say("service: it runs already, as asked for")
        return
    restart_service(steps)


def list_status() -> list[str]:
    """What is installed and what runs, in lines for a person."""
    lines = []
    for link in (layout.CURRENT, layout.PREVIOUS):
        release = read_link(link)
        lines.append(f"{link.name + ':':10}{release.name if release else 'none'}")
    for unit in (layout.SERVICE, layout.MODEL_SERVICE, layout.IDLE_TIMER):
        state = read_property(unit, "ActiveState")
        text = read_property(unit, "StatusText")
        lines.append(f"{unit}: {state}{' - ' + text if text else ''}")
    return lines
