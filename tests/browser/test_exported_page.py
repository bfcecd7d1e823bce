"""A chat exported as HTML, from a real server, looked at in a real browser."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from llavachat import Client
from pictures import draw_shape
from selenium import webdriver
from selenium.webdriver.common.by import By

SIZE = (320, 200)
LIGHT, DARK = ([{"name": "prefers-color-scheme", "value": scheme}] for scheme in ("light", "dark"))
MIN_CONTRAST = 4.5
"""Source: WCAG 2.2, success criterion 1.4.3."""


def write_hostile(address: str) -> str:
    """A question that would run, or call home, if it were anything but text."""
    return (
        f"<script>document.title = 'mine'; fetch('{address}/script')</script>"
        f"<img src='{address}/picture' onerror=\"document.title = 'mine'\">"
        f"</title><link rel=stylesheet href='{address}/style'><iframe src='{address}/frame'>"
        f"<meta http-equiv=refresh content='0;url={address}/refresh'>"
    )


@pytest.fixture(scope="module")
def chat(server_address: str) -> Any:
    """A chat of three turns about one picture, with a fork."""
    with Client(server_address) as client:
        reply = client.start(draw_shape("circle", "red", SIZE), "What is this?", temperature=0)
        reply.read()
        for question in ("And what colour is it?", "x" * 400):
            reply.chat.ask(question, parent=reply.turn_id, temperature=0).read()
        yield reply.chat


def show(browser: webdriver.Chrome, chat: Any, folder: Path, media: Any = LIGHT) -> None:
    """Export the chat, and open the page as a file."""
    path = folder / "chat.html"
    path.write_text(chat.export("html"), encoding="utf-8")
    browser.get_log("performance")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": media})
    browser.get(path.as_uri())


def list_requests(browser: webdriver.Chrome) -> set[str]:
    """The schemes of all that the page asked for since it was opened."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return {
        message["params"]["request"]["url"].partition(":")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }


def test_a_person_sees_the_chat(browser: webdriver.Chrome, chat: Any, tmp_path: Path) -> None:
    """Question, answer, and the picture in its own size; the fork has a heading for each branch."""
    show(browser, chat, tmp_path)
    assert "What is this?" == browser.title == browser.find_element(By.TAG_NAME, "h1").text
    words = [element.text for element in browser.find_elements(By.CLASS_NAME, "words")]
    history = chat.history()
    assert [text for turn in history for text in (turn.prompt, turn.answer)] == words
    (picture,) = browser.find_elements(By.TAG_NAME, "img")
    assert picture.is_displayed()
    shown = browser.execute_script(
        "return [arguments[0].naturalWidth, arguments[0].width]", picture
    )
    assert [SIZE[0], SIZE[0] + 2] == [shown[0], picture.rect["width"]], "with its border"
    headings = [element.text for element in browser.find_elements(By.TAG_NAME, "h2")]
    assert [f"From turn 1: branch {number} of 2" for number in (1, 2)] == headings
    assert {"file", "data"} == list_requests(browser)
    assert [] == [entry["message"] for entry in browser.get_log("browser")]


def test_what_was_said_is_text(
    browser: webdriver.Chrome, server_address: str, trap: Any, tmp_path: Path
) -> None:
    """Markup in a question is shown as it was typed; nothing runs and nothing is fetched."""
    hostile = write_hostile(trap.address)
    with Client(server_address) as client:
        reply = client.start(draw_shape("star", "blue", SIZE), hostile, max_tokens=4)
        reply.read()
        show(browser, reply.chat, tmp_path)
        reply.chat.delete()
    assert hostile == browser.find_element(By.CLASS_NAME, "words").text
    assert browser.title.startswith("<script>document.title")
    assert {"file", "data"} == list_requests(browser)
    assert [] == trap.paths


def read_colours(browser: webdriver.Chrome, selector: str) -> tuple[list[float], list[float]]:
    """An element's ink and what lies behind it: red, green and blue, 0 to 255."""
    script = """
        let element = document.querySelector(arguments[0]);
        const ink = getComputedStyle(element).color;
        const seen = e => getComputedStyle(e).backgroundColor;
        while (seen(element) === "rgba(0, 0, 0, 0)") element = element.parentElement;
        return [ink, seen(element)];
    """
    ink, paper = browser.execute_script(script, selector)
    return tuple([float(n) for n in re.findall(r"[\d.]+", text)[:3]] for text in (ink, paper))


def contrast(one: list[float], other: list[float]) -> float:
    """Source: WCAG 2.2, definitions of relative luminance and contrast ratio."""

    def luminance(colour: list[float]) -> float:
        parts = (value / 255 for value in colour)
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("media", "is_dark"), [(LIGHT, False), (DARK, True)])
def test_it_can_be_read_by_day_and_by_night(
    browser: webdriver.Chrome, chat: Any, tmp_path: Path, media: Any, is_dark: bool
) -> None:
    """It follows the reader's scheme, and every sort of text stands out from its ground."""
    show(browser, chat, tmp_path, media)
    for selector in ("h1", "h2", ".question .words", ".answer .words", ".facts", ".who"):
        ink, paper = read_colours(browser, selector)
        assert is_dark == (sum(paper) < 3 * 128), selector
        assert contrast(ink, paper) >= MIN_CONTRAST, selector


def test_it_fits_a_telephone(browser: webdriver.Chrome, chat: Any, tmp_path: Path) -> None:
    """No line runs out of the window, however long its words are."""
    telephone = {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", telephone)
    try:
        show(browser, chat, tmp_path)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert 360 == width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_can_be_printed(browser: webdriver.Chrome, chat: Any, tmp_path: Path) -> None:
    """Black on white, whatever the reader's scheme, with the picture on the page."""
    show(browser, chat, tmp_path, DARK)
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF-")
    assert b"/Subtype /Image" in pdf
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": DARK})
    ink, paper = read_colours(browser, ".answer .words")
    assert ([0, 0, 0], [255, 255, 255]) == (ink, paper)
