"""From nothing to an answer; again; interrupted; and what is said when a machine is not fit."""

import time

from container import Container
from figures import Figures
from host import Host, Releases
from pictures import red_circle


def test_unfit_machine_is_told_all_at_once(machine: Container, releases: Releases) -> None:
    """Every fault in one go, each with what is needed, and nothing is changed."""
    check = f"{releases.this}/assets/install"
    done = machine.run_raw(check, "check", "--profile", "llava-1.5-7b")
    assert 1 == done.returncode
    assert "GPU: none is plugged in; llava-1.5-7b needs one" in done.stdout
    assert not (machine.root / "etc/llavachat").exists()


def test_install_from_nothing_answers(installed: Host) -> None:
    """One command, and a picture sent from outside is answered."""
    assert installed.ask(red_circle()).strip()
    status = installed.read_property("StatusText")
    assert status.startswith("Serving shapes on 127.0.0.1:50051: "), status
    for said in ("libraries", ": done in", "model: shapes comes with", "first answer: done in"):
        assert said in installed.first_output


def test_installing_again_changes_nothing(host: Host, releases: Releases, figures: Figures) -> None:
    """The same release again is quick, and the service is not even restarted."""
    process, began = host.process_id, time.monotonic()
    said = host.install(releases.this)
    figures.add("install again, nothing new", time.monotonic() - began)
    assert "it runs already" in said
    assert process == host.process_id


def test_interrupted_install_is_resumed(host: Host, releases: Releases) -> None:
    """Killed half-way, it leaves the old release running; run again, it goes on and ends."""
    process, before = host.process_id, host.release
    folder = releases.make("interrupted", edit=lambda _, text: text + "\n# interrupted\n")
    host.machine.shell(
        f"{folder}/assets/install run >/tmp/said 2>&1 & installer=$!; "
        "until grep -q '^ *[0-9.]* s  release .* \\.\\.\\.' /tmp/said; do sleep 0.05; done; "
        "kill -9 $installer"
    )
    assert (before, process) == (host.release, host.process_id)
    host.install(folder)
    assert before != host.release
    assert host.ask(red_circle()).strip()
