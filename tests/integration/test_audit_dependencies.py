"""`make audit` against services on loopback that speak OSV's protocol: each of its ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROBE = ("pip", "25.0")
Answer = Callable[[str, str], dict[str, object] | None]
"""What is known of a package's version; None: the service breaks down."""


@contextmanager
def service(answer: Answer) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A service, and what it was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        """OSV's `POST /v1/query`. Source: https://google.github.io/osv.dev/post-v1-query/."""

        def do_POST(self) -> None:
            """Answer one query."""
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((query["package"]["name"], query["version"]))
            found = answer(*asked[-1])
            body = json.dumps(found or {}).encode()
            self.send_response(200 if found is not None else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
        finally:
            server.shutdown()
            thread.join()


def known(name: str) -> dict[str, object]:
    """One vulnerability of every release before the hundredth."""
    events = [{"introduced": "0"}, {"fixed": "100.0"}]
    ranges = [{"type": "ECOSYSTEM", "events": events}]
    affected = {"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}
    return {"vulns": [{"id": "PYSEC-2026-1", "summary": "Bad.", "affected": [affected]}]}


def audit(url: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a service."""
    return subprocess.run(
        [ROOT / "scripts/audit-dependencies"],
        env={**os.environ, "PYTHON": sys.executable, "OSV_URL": url, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
    )


def test_nothing_known_passes() -> None:
    """Every pin was asked about, in its version."""
    with service(lambda *asked: known("pip") if asked == PROBE else {}) as (url, asked):
        done = audit(url)
    assert (0, "") == (done.returncode, done.stderr)
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    names = {canonicalize_name(line.partition("==")[0]) for line in pins if line[0].isalnum()}
    assert names == {name for name, _ in asked[1:]}
    assert f"no known vulnerability in {len(asked) - 1} pinned dependencies" in done.stdout


def test_one_that_is_known_fails_and_is_named() -> None:
    """With what is known of it, the release that mends it, and what to do."""

    def answer(name: str, version: str) -> dict[str, object]:
        return known(name) if (name, version) == PROBE or name == "pillow" else {}

    with service(answer) as (url, _):
        done = audit(url)
    assert 1 == done.returncode
    (line,) = [line for line in done.stdout.splitlines() if "PYSEC-2026-1" in line]
    assert ["pillow", "100.0"] == [line.split()[0], line.split()[3]]
    assert "FAILED: pinned dependencies have known vulnerabilities" in done.stderr


def test_no_service_is_said_and_never_called_good() -> None:
    """Nobody listens there, or whoever does knows nothing of what is known."""
    with service(lambda *_: {}) as (url, _):
        ignorant = audit(url)
    for done in (ignorant, audit(url)):
        assert (0, "") == (done.returncode, done.stderr)
        assert done.stdout.startswith("SKIPPED: no vulnerability service answers from here")


def test_a_service_that_goes_away_fails() -> None:
    """Half an audit is none."""
    with service(lambda *asked: known("pip") if asked == PROBE else None) as (url, _):
        done = audit(url)
    assert 1 == done.returncode
    assert "FAILED: the vulnerability service went away in between" in done.stderr
