"""A real PostgreSQL for tests: Debian's package, in a folder of its own, on a socket of its own."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

USER = "postgres"


class Postgres:
    """A running server; `folder` holds its socket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{secrets.token_hex(4)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 ENCODING UTF8')
        return self._url(name)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still inside the block: connections live, and nothing is answered."""
        postmaster = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        pids = [postmaster]
        try:
            # Once it stands still it begins no more; one of those that it has may be ending.
            os.kill(postmaster, signal.SIGSTOP)
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
            pids += map(int, children)
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _url(self, name: str) -> str:
        return f"postgresql://{USER}@/{name}?host={self._folder}"


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl; None when PostgreSQL is not installed."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def run_postgres(programs: Path) -> Iterator[Postgres]:
    """Start a server of its own and stop it again. PostgreSQL refuses to run as root."""
    folder = Path(tempfile.mkdtemp(prefix="llavachat-postgres-"))
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam(USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def run(*command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)

    data = str(folder / "data")
    run(str(programs / "initdb"), "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    control = (str(programs / "pg_ctl"), "-D", data, "-w")
    run(*control, "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield Postgres(folder)
    finally:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
