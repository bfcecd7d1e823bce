"""A new release takes over; one that can not leaves the old one answering; and the way back."""

import time

from figures import Figures
from host import SERVICE, Host, Releases
from llavachat_server.chats.sql.schema import HEAD
from pictures import red_circle


def test_update_and_rollback(host: Host, releases: Releases, figures: Figures) -> None:
    """The new release answers; going back needs nothing but one command."""
    old = host.release
    folder = releases.make("update", edit=lambda _, text: text + "\n# a new release\n")
    began = time.monotonic()
    said = host.install(folder)
    figures.add("update to a release with the same libraries", time.monotonic() - began)
    assert "libraries: done in" not in said
    assert old != host.release
    assert host.ask(red_circle()).strip()
    began = time.monotonic()
    host.machine.run("/opt/llavachat/current/assets/install", "rollback")
    figures.add("rollback", time.monotonic() - began)
    assert old == host.release
    assert host.ask(red_circle()).strip()


def test_update_that_is_prepared_beforehand(host: Host, releases: Releases) -> None:
    """The old release has not noticed; the update finds all of it there, also after a reboot."""
    process, before = host.process_id, host.release
    folder = releases.make("prepared", edit=lambda _, text: text + "\n# prepared\n")
    said = host.machine.run(f"{folder}/assets/install", "prepare")
    assert "s  release " in said
    assert "first answer" not in said
    assert (before, process) == (host.release, host.process_id)
    host.machine.reboot()
    host.wait_until_serving()
    assert before == host.release
    said = host.install(folder)
    assert "is there already" in said.partition("release: ")[2].splitlines()[0]
    assert before != host.release
    assert host.ask(red_circle()).strip()


def test_update_that_can_not_be_installed(host: Host, releases: Releases, figures: Figures) -> None:
    """A library that does not exist: the old release has not noticed."""
    process, before = host.process_id, host.release
    folder = releases.make("no-such-library", constraints="torch==0.0.1\n")
    began = time.monotonic()
    done = host.machine.run_raw(f"{folder}/assets/install", "run")
    figures.add("update that can not be installed, old release untouched", time.monotonic() - began)
    assert 1 == done.returncode
    assert "install: torch can not be installed" in done.stdout
    assert (before, process) == (host.release, host.process_id)
    assert host.ask(red_circle()).strip()


def test_update_that_does_not_start(host: Host, releases: Releases, figures: Figures) -> None:
    """A server that breaks at its start: the old release answers again by itself."""

    def break_start(name: str, text: str) -> str:
        return f"{text}\nraise ImportError\n" if name.endswith("_server/app.py") else text

    before = host.release
    folder = releases.make("broken", edit=break_start)
    began = time.monotonic()
    done = host.machine.run_raw(f"{folder}/assets/install", "run")
    figures.add("update that does not start, old release back", time.monotonic() - began)
    assert 1 == done.returncode
    assert "its journal ends with" in done.stdout
    assert "ImportError" in done.stdout
    assert f"{before} runs as before" in done.stdout
    assert before == host.release
    assert host.ask(red_circle()).strip()


MIGRATION = """
from alembic import op
revision = "later"
down_revision = "{head}"
def upgrade():
    op.execute("CREATE TABLE later (number INTEGER)")
"""


def test_update_that_fails_after_it_changed_the_database(host: Host, releases: Releases) -> None:
    """It has brought the chats to a form that the old release does not know, and does not answer:
    the old one has them back in their old form, with every chat."""

    def break_start(name: str, text: str) -> str:
        if name.endswith("sql/schema.py"):
            return text.replace(f'HEAD = "{HEAD}"', 'HEAD = "later"')
        if name.endswith("_server/assembly.py"):
            return f"{text}\ndef make_batching_engine(*_):\n    raise SystemExit(3)\n"
        return text

    with host.client() as client, client.start(red_circle(), "What is this?") as reply:
        answer, chat_id = reply.read(), reply.chat.id
    before = host.release
    versions = "llavachat_server/chats/sql/migrations/versions"
    migration = {f"{versions}/9999_later.py": MIGRATION.format(head=HEAD)}
    folder = releases.make("migrating", edit=break_start, more=migration)
    done = host.machine.run_raw(f"{folder}/assets/install", "run")
    assert 1 == done.returncode
    assert f"{before} runs as before" in done.stdout, done.stdout
    assert '"event": "store migration"' in host.machine.read_journal("-u", SERVICE, "-b")
    with host.client() as client:
        assert [answer] == [turn.answer for turn in client.chat(chat_id).record().turns]
        assert client.chat(chat_id).ask("What colour is it?", timeout_seconds=30).read().strip()
    assert "chats.db.before" not in host.machine.run("ls", "/var/lib/private/llavachat")


def test_update_onto_a_full_disk(host: Host, releases: Releases) -> None:
    """No room for the new release: the old one runs on; with room, the same command works."""
    process, before = host.process_id, host.release
    folder = releases.make("full-disk", edit=lambda _, text: text + "\n# full disk\n")
    name = host.machine.run(
        "python3",
        "-c",
        f"import sys; sys.path.insert(0, '{folder}/assets')\n"
        "from pathlib import Path\n"
        "from llavachat_host.release import Source\n"
        f"print(Source.find(Path('{folder}')).name)",
    ).strip()
    place = f"/opt/llavachat/releases/{name}"
    host.machine.shell(f"mkdir {place} && mount -t tmpfs -o size=2M none {place}")
    done = host.machine.run_raw(f"{folder}/assets/install", "run")
    host.machine.run("umount", place)
    assert 1 == done.returncode
    assert "No space left on device" in done.stdout
    assert (before, process) == (host.release, host.process_id)
    host.install(folder)
    assert name == host.release
    assert host.ask(red_circle()).strip()
