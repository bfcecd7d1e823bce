"""The HTML page of a chat: what was said is text in it, and nothing in it runs or is fetched."""

import base64
import hashlib
from dataclasses import replace
from html.parser import HTMLParser

from archives import ARCHIVE, CHAT, TURN, chats, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat.page import POLICY, STYLE, write_page
from llavachat.types import ChatArchive, FinishReason, TurnState

TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "a", "section",
    "article", "div", "figure", "figcaption", "img",
}  # fmt: skip
VOID = {"meta", "img"}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "id", "dir", "href",
              "alt", "src"}  # fmt: skip
HOSTILE = (
    "<script>alert(1)</script>",
    "</style><script>x</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><svg onload=x>",
    "<!-- ",
    "&lt;b&gt; &#60;",
    "]]><![CDATA[",
    "javascript:alert(1)",
    "\u202e\0\x1b\ufffe\U0001fffe",
)


class Page(HTMLParser):
    """What a browser finds in a page, strictly."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.others: list[str] = []
        self.is_among_words = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Keep it."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if ("class", "words") in attrs or tag in ("h1", "title"):
            self.words.append("")
            self.is_among_words = True

    def handle_endtag(self, tag):
        """It closes what was opened last."""
        assert tag == self.open.pop()
        self.is_among_words = False

    def handle_data(self, data):
        """Text of the chat, or of the page."""
        if self.is_among_words:
            self.words[-1] += data

    def handle_comment(self, data):
        """There is none."""
        self.others.append(data)

    unknown_decl = handle_pi = handle_comment

    def find(self, tag):
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def check(text):
    """The page is well formed, and holds nothing that runs or is fetched."""
    page = Page(text)
    assert [] == page.open
    assert [] == page.others
    assert TAGS >= {tag for tag, _ in page.tags}
    assert ATTRIBUTES >= {name for _, attributes in page.tags for name in attributes}
    assert 1 == text.count("<style>")
    for link in page.find("a"):
        assert link["href"].startswith("#")
    for image in page.find("img"):
        assert image["src"].startswith("data:image/png;base64,")
        base64.b64decode(image["src"].partition(",")[2], validate=True)
    return page


def clean(text):
    """A text as HTML can hold it."""
    seen = (
        character
        if character in "\t\n\r"
        or (" " <= character <= "~")
        or ("\xa0" <= character and not _is_no_character(character))
        else "\ufffd"
        for character in text
    )
    return "".join(seen)


def _is_no_character(character):
    return character in "\ufffe\uffff" or "\ud800" <= character <= "\udfff"


hostile = st.sampled_from(HOSTILE) | texts | st.builds("".join, st.lists(st.sampled_from(HOSTILE)))


@settings(max_examples=200)
@given(
    prompt=hostile, answer=hostile, system=hostile, name=hostile, key=hostile, title=hostile,
    chat_id=hostile, turn_id=hostile, image_id=hostile,
)  # fmt: skip
def test_whatever_was_said_is_text(
    prompt, answer, system, name, key, title, chat_id, turn_id, image_id
):
    """Words of the chat appear as words, character by character, wherever they stand."""
    image = replace(TURN.images[0], id=image_id)
    turn = replace(
        TURN,
        id=turn_id,
        prompt=prompt,
        answer=answer,
        images=(image,),
        model=replace(TURN.model, name=name),
    )
    chat = replace(
        CHAT,
        id=chat_id,
        title=title,
        system_prompt=system,
        labels={key: system},
        turns=(turn, replace(turn, id="t2", parent_turn_id=turn_id)),
    )
    text = write_page(ChatArchive(chat, {image_id: b"png"}))
    page = check(text)
    answers = [answer] if answer else []
    said = [*([system] if system else []), prompt, *answers, prompt, *answers]
    heading = " ".join(title.split()) or "Chat"
    assert [clean(words) for words in (heading, heading, *said)] == page.words


@settings(max_examples=50)
@given(chat=chats)
def test_any_tree_is_a_page(chat):
    """Each turn is there once, in whatever order a file may have them."""
    page = check(write_page(ChatArchive(chat, {})))
    numbers = {turn.id: number for number, turn in enumerate(chat.turns, start=1)}
    if len(numbers) == len(chat.turns):
        expected = sorted(f"turn-{number}" for number in numbers.values())
        assert expected == sorted(article["id"] for article in page.find("article"))


def test_the_policy_forbids_all_but_the_style_and_the_pictures():
    """No script, no frame, no form, no address; the style is let in by its hash alone."""
    page = check(write_page(ARCHIVE))
    (policy,) = [meta for meta in page.find("meta") if "http-equiv" in meta]
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert POLICY == policy["content"]
    assert (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    ) == POLICY
    assert f"<style>{STYLE}</style>" in write_page(ARCHIVE)
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_a_picture_is_in_the_page_once():
    """The second time, the page points to the first."""
    again = replace(TURN, id="t2", parent_turn_id="t1")
    archive = replace(ARCHIVE, chat=replace(CHAT, turns=(TURN, again)))
    text = write_page(archive)
    data = base64.b64encode(archive.pictures["0" * 64]).decode()
    assert 1 == text.count(f'src="data:image/png;base64,{data}"')
    assert "the same picture" in text
    assert "Picture, 640 x 480 pixels" in write_page(replace(archive, pictures={}))


def test_branches_are_told_along_the_tree():
    """A stretch without a fork is one section; a fork says from where each branch goes on."""

    def turn(name, parent=None):
        return replace(TURN, id=name, prompt=f"{name}?", parent_turn_id=parent, images=())

    tree = (turn("a"), turn("b", "a"), turn("c", "b"), turn("d", "a"), turn("e"), turn("f", "c"))
    page = check(write_page(ChatArchive(replace(CHAT, turns=tree, system_prompt=None), {})))
    order = [article["id"] for article in page.find("article")]
    assert ["turn-1", "turn-2", "turn-3", "turn-6", "turn-4", "turn-5"] == order
    text = write_page(ChatArchive(replace(CHAT, turns=tree), {}))
    assert 'From <a href="#turn-1">turn 1</a>: branch 1 of 2' in text
    assert "Beginning 2 of 2" in text
    assert ["stretch", "stretch branch level-1", "stretch branch level-1", "stretch"] == [
        section["class"] for section in page.find("section")
    ]


def test_a_tree_as_deep_as_it_is_long_is_a_flat_page():
    """Thousands of turns, each a fork, nest no deeper than one of them."""
    trunk = [replace(TURN, id="0")]
    for number in range(1, 3000):
        parent = f"{2 * ((number - 1) // 2)}"
        trunk.append(replace(TURN, id=f"{number}", parent_turn_id=parent))
    text = write_page(ChatArchive(replace(CHAT, turns=tuple(trunk)), {}))
    assert 3000 == text.count("<article")
    assert 4 >= max(int(part[0]) for part in text.split("level-")[6:])


def test_how_an_answer_ended_and_where_it_came_from_is_told():
    """Stopped answers, nothing at all, and imports are marked."""
    cut = replace(
        TURN,
        answer="",
        state=TurnState.CANCELLED,
        finish_reason=FinishReason.CANCELLED,
        imported=True,
    )
    text = write_page(ChatArchive(replace(CHAT, turns=(cut,)), {}))
    assert "(nothing)" in text
    assert "(stopped by the caller)" in text
    assert "imported" in text
    assert "104 tokens asked, 5 answered" in text
    assert "temperature 0.2 · seed 18446744073709551615" in text
