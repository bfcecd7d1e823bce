"""What the command line keeps and shows, apart from any server: state, thumbnails, words."""

import io

import pytest
from llavachat._reply import ReplyRecord
from llavachat.cli import state
from llavachat.cli.characters import spell
from llavachat.cli.chats import lay_out
from llavachat.cli.demo import PICTURE
from llavachat.cli.output import (
    describe_end,
    describe_usage,
    fold,
    open_stderr,
    open_stdout,
    to_object,
)
from llavachat.cli.thumbnail import can_show, draw_thumbnail
from llavachat.types import (
    Delta,
    Finished,
    FinishReason,
    ModelInfo,
    Params,
    Started,
    Timings,
    Usage,
)
from PIL import Image
from rich.cells import cell_len
from rich.color import Color
from rich.console import Console


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(tmp_path / "state"))


def test_the_last_chat_is_kept_for_each_server():
    """One server's chat is not another's; None forgets."""
    assert state.read_last_chat("a:1") is None
    state.write_last_chat("a:1", "one")
    state.write_last_chat("b:1", "two")
    state.write_last_chat("a:1", "three")
    assert ("three", "two") == (state.read_last_chat("a:1"), state.read_last_chat("b:1"))
    state.write_last_chat("a:1", None)
    assert state.read_last_chat("a:1") is None
    assert ["last-chats.json"] == [path.name for path in state.find_state_folder().iterdir()]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a:1": 7}', "\udcff"])
def test_a_broken_state_is_no_state(content):
    """A file that something else wrote is passed over, and replaced."""
    folder = state.find_state_folder()
    folder.mkdir()
    (folder / "last-chats.json").write_bytes(content.encode(errors="surrogateescape"))
    assert state.read_last_chat("a:1") is None
    state.write_last_chat("a:1", "one")
    assert "one" == state.read_last_chat("a:1")


def test_a_state_that_can_not_be_written_is_no_failure(tmp_path, monkeypatch):
    """An answer is not lost because its chat could not be noted down."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(blocker / "state"))
    state.write_last_chat("a:1", "one")
    assert state.read_last_chat("a:1") is None
    assert state.find_history_file() is None


def test_a_thumbnail_is_two_pixels_a_character():
    """The upper half of a character has one colour, the lower the other."""
    picture = Image.new("RGB", (2, 2), "red")
    picture.paste("blue", (0, 1, 2, 2))
    text = draw_thumbnail(picture)
    assert "▀▀" == text.plain
    style = text.spans[0].style
    assert (Color.from_rgb(255, 0, 0), Color.from_rgb(0, 0, 255)) == (style.color, style.bgcolor)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1000, 10), (10, 1000), (640, 480)])
@pytest.mark.parametrize("mode", ["RGB", "P", "LA", "1", "CMYK"])
def test_a_thumbnail_fits(size, mode):
    """Any picture fits into the given rows and columns."""
    lines = draw_thumbnail(Image.new("L", size).convert(mode), max_columns=20, max_rows=8)
    rows = lines.plain.split("\n")
    assert 1 <= len(rows) <= 8
    assert all(1 <= len(row) <= 20 for row in rows)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"force_terminal": True, "color_system": "truecolor"}, True),
        ({"force_terminal": True, "color_system": "256"}, True),
        ({"force_terminal": True, "color_system": "standard"}, False),
        ({"force_terminal": True, "color_system": "truecolor", "no_color": True}, False),
        ({"force_terminal": False}, False),
    ],
)
def test_thumbnails_are_for_terminals_with_colours(options, expected):
    """Neither a pipe nor NO_COLOR gets one."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert expected is can_show(Console(file=file, **options))


def finished_reply(reason):
    """A whole answer."""
    reply = ReplyRecord()
    model = ModelInfo("shapes", "shapes", "", "none", "")
    reply._take(Started("c", "t", None, model, Params(max_tokens=9), ()))
    reply._take(Delta("Yes.", 0))
    usage, timings = Usage(40, 64, 8, 11, 400), Timings(0.0, 0.01, 0.02, 0.0514, 2.0)
    reply._take(Finished(reason, None, usage, timings))
    return reply


def test_usage_is_told_in_a_line():
    """Tokens asked and answered, time to the first token, speed, room left."""
    expected = (
        "104 tokens asked (64 picture, 8 cached), 11 answered; first token 51 ms, 5 tokens/s; "
        "400 tokens of context left"
    )
    assert expected == describe_usage(finished_reply(FinishReason.EOS))


@pytest.mark.parametrize("reason", list(FinishReason))
def test_an_answer_that_is_not_whole_is_told(reason):
    """Every reason but the two good ones has a sentence."""
    good = {FinishReason.EOS, FinishReason.STOP_SEQUENCE, FinishReason.UNSPECIFIED}
    sentence = describe_end(finished_reply(reason))
    assert (reason in good) == (sentence is None)
    assert sentence is None or sentence.endswith((".", "-tokens."))


def test_an_answer_as_an_object():
    """All that a program may want, in plain values."""
    plain = to_object(finished_reply(FinishReason.EOS))
    assert ("Yes.", "c", "t", "eos", 11) == (
        plain["answer"],
        plain["chat_id"],
        plain["turn_id"],
        plain["finish_reason"],
        plain["usage"]["completion_tokens"],
    )
    assert 0.0514 == plain["timings"]["first_token_seconds"]


ROW = ("3f0c9a1e-5b1d-4c55-9d0a-7c1f2e3d4a5b", "12", "12 min ago", "What is there, 写真の中に?")


@pytest.mark.parametrize(
    ("width", "headers", "line"),
    [
        (100, "ID TURNS USED FIRST QUESTION", " ".join(("   ".join(ROW[:2]), *ROW[2:]))),
        (60, "ID TURNS USED FIRST…", f"{ROW[0]}    12 12 min ago What …"),
        (54, "ID TURNS USED", f"{ROW[0]}    12 12 min ago"),
        (50, "ID TURNS", f"{ROW[0]}    12"),
        (41, "ID", ROW[0]),
        (20, "ID", ROW[0]),
    ],
)
def test_a_narrow_list_of_chats_keeps_its_ids(width, headers, line):
    """The question gives way first, then when it was used, then the turns; never the ID."""
    first, second = lay_out([ROW], width)
    assert (headers.split(), line.split()) == (first.split(), second.split())
    assert all(cell_len(each) <= max(width, len(ROW[0])) for each in (first, second))


def test_columns_stand_below_one_another():
    """Numbers to the right, all else to the left, by what a terminal makes of each character."""
    lines = lay_out([ROW, (ROW[0], "3", "just now", "And?")], 100)
    for texts in (("FI", "What", "And"), ("S US", "2 12", "3 ju")):
        assert 1 == len({line.index(text) for line, text in zip(lines, texts, strict=True)})


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("to the next question", 13, "to the next\nquestion"),
        ("/save  writes the chat", 20, "/save  writes the\n       chat"),
        ("   12.3 s  stage", 13, "   12.3 s\nstage"),
        ("  one two three", 13, "  one two\n  three"),
        ("Saved to /a/long/path/of/it.md.", 13, "Saved to\n/a/long/path/of/it.md."),
        ("a\n\nb", 13, "a\n\nb"),
    ],
)
def test_lines_are_folded_between_words(text, width, expected):
    """A second column stays one, where there is room; what is to be copied stays whole."""
    assert expected == fold(text, width)


@pytest.mark.parametrize("opened", [open_stderr, open_stdout])
def test_a_width_of_0_is_none(opened, monkeypatch, capsys):
    """Whoever set COLUMNS did not know it; what is said is to be seen all the same."""
    monkeypatch.setenv("COLUMNS", "0")
    console = opened()
    console.print("What is said", soft_wrap=True)
    assert ("What is said\n", 80) == ("".join(capsys.readouterr()), console.width)


def test_spelling_keeps_what_texts_are_made_of():
    """Lines however they end, tabs, every script; "?" where the terminal has no U+FFFD."""
    text = "a\tb\nc \u200f\u05d0 \N{GRINNING FACE}"
    assert text == spell(text)
    assert "a\nb\ufffd" == spell("a\r\nb\r")
    assert "a?" == spell("a\x1b", "latin-1")


def test_the_demonstrations_picture_is_small_and_as_described():
    """Under 20 kB: a red circle on the left, a blue square on the right, white between."""
    assert PICTURE.stat().st_size < 20_000
    with Image.open(PICTURE) as picture:
        pixels = [picture.convert("RGB").getpixel(point) for point in ((200, 240), (500, 240))]
        white = picture.convert("RGB").getpixel((390, 240))
    assert [(220, 30, 30), (30, 60, 220), (255, 255, 255)] == [*pixels, white]
