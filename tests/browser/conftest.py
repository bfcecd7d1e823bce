"""A real Chromium without a window, and a web server that nobody may call."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
"""Where Debian's packages chromium and chromium-driver put them."""


@dataclass
class Trap:
    """A web server on loopback; `paths` are what was asked of it."""

    address: str
    paths: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """The browser, one window of a laptop's size."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Root may not have Chromium's own sandbox; the pages are ours.
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    driver.set_window_size(1200, 900)
    yield driver
    driver.quit()


@pytest.fixture
def trap() -> Iterator[Trap]:
    """A web server that writes down who calls."""
    caught: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers nothing of use."""

        def do_GET(self) -> None:
            """Write the call down."""
            caught.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *arguments: object) -> None:
            """Stay quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Trap(f"http://127.0.0.1:{server.server_port}", caught)
    server.shutdown()
    thread.join()
    server.server_close()
