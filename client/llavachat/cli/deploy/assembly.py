"""Runs CDK's command line on our app, and keeps what it said."""

import os
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping

from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.toolkit import App, find_cdk

_NUM_LINES = 400


class CdkRun:
    """One run of the command line, its output read as it comes.

    Args:
        app: None for a command that needs none; CDK would synthesise it all the same.
        words: the command and its arguments.
        on_line: called from another thread with each line.
    """

    def __init__(
        self,
        account: Account,
        app: App | None,
        words: list[str],
        options: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> None:
        self.lines: deque[str] = deque(maxlen=_NUM_LINES)
        self._on_line = on_line
        self._folder = tempfile.TemporaryDirectory(prefix="llavachat-cdk-")
        command = [*find_cdk(), *words, "--no-notices", "--no-color"]
        if app is not None:
            command += ["--app", f"{app.python} {app.folder / 'cdk' / 'app.py'}"]
            command += ["--output", self._folder.name]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        environment = os.environ | {
            "AWS_REGION": account.region,
            "AWS_DEFAULT_REGION": account.region,
            "CDK_DEFAULT_REGION": account.region,
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
            # It tells Amazon of each run, and waits for that.
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            # Events come as lines, not as a bar that redraws itself.
            "CI": "true",
        }
        self._process = subprocess.Popen(  # noqa: S603 - CDK
            command,
            cwd=self._folder.name if app is None else app.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """The exit code. None: it still runs."""
        return self._process.poll()

    def interrupt(self) -> None:
        """Ask it to end; what CloudFormation was told, it does."""
        self._process.terminate()

    def finish(self) -> int:
        """Wait for its end; its exit code."""
        try:
            code = self._process.wait()
            self._reader.join(5)
        finally:
            if self._process.poll() is None:
                self._process.terminate()
                self._process.wait()
            self._folder.cleanup()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if text := line.rstrip():
                self.lines.append(text)
                self._on_line(text)
