"""The check of what the documents tell people to type, and of where their links lead."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CheckDocument = Callable[[Path], list[str]]

RIGHT = """# A page

## What it's for: `make`, and more

```sh
.venv/bin/llavachat ask cat.jpg "What | is; this?" --temperature=0 > answer.txt
llavachat serve --listen 127.0.0.1:0 | llavachat ask -c - "And this?"
OTEL_EXPORTER_OTLP_PROTOCOL=grpc llavachat-server --metrics-listen 127.0.0.1:9464
make fuzz SECONDS=60  # a minute
```

1. As a list has it:

   ```console
   $ /opt/llavachat/current/venv/bin/llavachat-server keys add anna --file keys
   llavachat frobnicate
   $ python -m bench.gpu --rounds 1 && scripts/smoke-aws
   ```

```text
llavachat frobnicate
```

[here](#what-its-for-make-and-more), [there](other.md#twice-1), [out](https://example.com/#nowhere),
`python -m pytest tests/unit/test_settings.py`, and `a picture's name`.
"""


@pytest.fixture(scope="module")
def check_document() -> CheckDocument:
    """What the script does with a document; it reads each help once."""
    check: CheckDocument = runpy.run_path(str(ROOT / "scripts" / "check_documents.py"))[
        "check_document"
    ]
    return check


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A place for a page, beside one that it can link to."""
    (tmp_path / "other.md").write_text("# Twice\n```sh\n# Not a heading\n```\n# Twice\n")
    return tmp_path / "page.md"


def test_what_exists_is_accepted(check_document: CheckDocument, page: Path) -> None:
    """In each form that the documents use."""
    page.write_text(RIGHT)
    assert [] == check_document(page)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("make nosuch", "no make target 'nosuch'"),
        ("llavachat frobnicate", "`llavachat frobnicate` is not a command"),
        (".venv/bin/llavachat frobnicate --nope", "`llavachat frobnicate` is not a command"),
        ("llavachat ask cat.jpg --temp 1", "no flag --temp"),
        ("llavachat ask cat.jpg -Z", "no flag -Z"),
        ("llavachat-server nosuch", "`llavachat-server nosuch` is not a command"),
        ("llavachat-server keys nosuch", "`llavachat-server keys nosuch` is not a command"),
        ("true && llavachat-server --max-turn 3", "no flag --max-turn"),
        ("python -m bench.nothing", "no module bench.nothing"),
        ("python3 -m bench.gpu --nope", "no flag --nope"),
        ("scripts/nosuch --all", "no file scripts/nosuch"),
        ("python -m pytest tests/unit/test_nosuch.py::test", "no file tests/unit/test_nosuch.py"),
        ("pip install -c nosuch.txt '.[cli]'", "no file nosuch.txt"),
        ("echo 'open", "No closing quotation"),
    ],
)
@pytest.mark.parametrize("form", ["```sh\n{}\n```\n", "1. so\n\n   ```\n   {}\n   ```\n"])
def test_a_wrong_line_is_told(
    line: str, why: str, form: str, check_document: CheckDocument, page: Path
) -> None:
    """With why it is wrong, however its block is fenced."""
    page.write_text(form.format(line))
    assert [f"page.md: `{line}`: {why}"] == check_document(page)


@pytest.mark.parametrize(
    ("prose", "told"),
    [
        ("do `make nosuch` now", "`make nosuch`: no make target 'nosuch'"),
        ("see `tests/unit/nosuch.py`", "`tests/unit/nosuch.py`: no file tests/unit/nosuch.py"),
        ("[a](nosuch.md)", "link to nosuch.md: no such file"),
        ("[a](#nosuch)", "link to #nosuch: no such heading"),
        ("[a](other.md#twice-2)", "link to other.md#twice-2: no such heading"),
        ("[a](other.md#not-a-heading)", "link to other.md#not-a-heading: no such heading"),
        ("[a]: nosuch.md", "link to nosuch.md: no such file"),
        ('<img src="nosuch.png">', "link to nosuch.png: no such file"),
    ],
)
def test_wrong_prose_is_told(
    prose: str, told: str, check_document: CheckDocument, page: Path
) -> None:
    """Commands and files that it names, and links."""
    page.write_text(f"# A page\n\n{prose}\n")
    assert [f"page.md: {told}"] == check_document(page)
