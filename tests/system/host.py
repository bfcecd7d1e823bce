"""A machine with llavachat on it, as its operator and its callers see it; and releases for it."""

import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from container import Container
from llavachat import Client, LlavaChatError

SERVICE = "llavachat.service"
MODEL_SERVICE = "llavachat-model.service"
ROOT = Path(__file__).resolve().parents[2]
PORT = 50051
HANG = ROOT / "tests" / "system" / "hang"


class Releases:
    """Folders as a deployment unpacks them, inside a machine.

    Attributes:
        this: this tree's release.
    """

    def __init__(self, machine: Container, wheel: Path) -> None:
        self._machine = machine
        self._wheel = wheel
        # Read once: the tree may change while its tests run.
        self._pins = (ROOT / "constraints.txt").read_text()
        self._assets = ROOT / "cdk" / "assets"
        self.this = self.make("this")
        self._assets = machine.root / "srv" / "this" / "assets"

    def make(
        self,
        name: str,
        *,
        edit: Callable[[str, str], str] | None = None,
        more: dict[str, str] | None = None,
        constraints: str = "",
    ) -> str:
        """A release made from this tree's.

        Args:
            name: of its folder.
            edit: given each Python file's name and text, returns its text.
            more: files to add to the wheel, by their names.
            constraints: lines to add to the constraints.

        Returns:
            The folder's path inside the machine.
        """
        folder = self._machine.root / "srv" / name
        shutil.copytree(
            self._assets,
            folder / "assets",
            ignore=shutil.ignore_patterns("__pycache__", ".*_cache"),
        )
        (folder / "constraints.txt").write_text(self._pins + constraints)
        with (
            zipfile.ZipFile(self._wheel) as old,
            zipfile.ZipFile(folder / self._wheel.name, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for entry in old.infolist():
                data = old.read(entry)
                if edit is not None and entry.filename.endswith(".py"):
                    data = edit(entry.filename, data.decode()).encode()
                new.writestr(entry, data)
            for file, text in (more or {}).items():
                new.writestr(file, text)
        return f"/srv/{name}"


class Host:
    """A machine with the service on it."""

    def __init__(self, machine: Container) -> None:
        self.machine = machine
        self.first_output = ""

    def install(self, release: str, *flags: str) -> str:
        """Run the installer of a release; what it said."""
        return self.machine.run(f"{release}/assets/install", "run", *flags)

    def make_well(self) -> None:
        """Have the service answer again, whatever a test left behind."""
        self.machine.shell(
            f"rm -rf /etc/systemd/system/{SERVICE}.d/90-test.conf /etc/llavachat/alert "
            "/run/llavachat-alerts; : >/etc/llavachat/server.toml; systemctl daemon-reload; "
            f"systemctl reset-failed; systemctl start {SERVICE}"
        )

    def write_settings(self, text: str) -> None:
        """The operator's settings; `make_well` takes them back."""
        (self.machine.root / "etc/llavachat/server.toml").write_text(text)

    def client(self) -> Client:
        """A new client, which leaves a lost answer lost."""
        return Client(f"127.0.0.1:{PORT}", resume_seconds=0)

    def ask(self, picture: bytes, question: str = "What is this?") -> str:
        """One question about a picture; its answer."""
        with self.client() as client:
            return client.start(picture, question, timeout_seconds=30).read()

    def is_serving(self) -> bool:
        """Whether the health service says so now."""
        with suppress(LlavaChatError), self.client() as client:
            return client.is_healthy(timeout_seconds=1)
        return False

    def wait_until_serving(self, seconds: float = 180.0) -> float:
        """Wait for SERVING; the seconds it took."""
        began = time.monotonic()
        while not self.is_serving():
            if time.monotonic() - began > seconds:
                raise AssertionError(
                    f"not serving within {seconds:.0f} s:\n"
                    + self.machine.run("systemctl", "status", "--no-pager", SERVICE, check=False)
                )
            time.sleep(0.05)  # a server that is down can not tell when it is up
        return time.monotonic() - began

    def wait_until(self, look: Callable[[], object], seconds: float = 60.0) -> None:
        """Look again and again until there is something; for what nobody tells of."""
        end = time.monotonic() + seconds
        while not look():
            assert time.monotonic() < end, self.machine.read_journal("-u", SERVICE, "-n", "50")
            time.sleep(0.05)

    def read_property(self, name: str) -> str:
        """A property of the service's unit."""
        return self.machine.read_property(SERVICE, name)

    @property
    def process_id(self) -> int:
        """The server's process, as numbered inside the machine."""
        return int(self.read_property("MainPID"))

    @property
    def release(self) -> str:
        """The release in use."""
        return Path(self.machine.run("readlink", "/opt/llavachat/current").strip()).name


class Streams:
    """Many answers at once, each until its end, with what it ended in and when.

    A penalty far below 1 makes the model say again what was said, and so it never comes to an end
    of its own before `max_tokens`. How far below, and after which question, is the checkpoint's: of
    three questions and six penalties, this question with 0.02 and 0.01 alone had no end.
    """

    def __init__(self, host: Host, picture: bytes, number: int, *, max_tokens: int) -> None:
        self._host = host
        self._picture = picture
        self._max_tokens = max_tokens
        self._pool = ThreadPoolExecutor(number)
        self._began = threading.Barrier(number + 1)
        self.ended: list[Future[tuple[float, BaseException | str]]] = [
            self._pool.submit(self._read) for _ in range(number)
        ]
        self._began.wait(60)

    def results(self, seconds: float) -> list[tuple[float, BaseException | str]]:
        """Of each stream: the monotonic time of its end, and its text or error."""
        try:
            return [future.result(seconds) for future in self.ended]
        finally:
            self._pool.shutdown(wait=False)

    def _read(self) -> tuple[float, BaseException | str]:
        text = ""
        is_first = True
        try:
            with (
                self._host.client() as client,
                client.start(
                    self._picture,
                    "What is this?",
                    max_tokens=self._max_tokens,
                    temperature=0.0,
                    repetition_penalty=0.01,
                    timeout_seconds=120,
                ) as reply,
            ):
                for part in reply:
                    text += part
                    if is_first:
                        is_first = False
                        self._began.wait(60)
        except LlavaChatError as error:
            return time.monotonic(), error
        return time.monotonic(), text
