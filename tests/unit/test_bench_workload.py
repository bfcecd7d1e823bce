"""The comparison's workload is the same for all, and new in every round."""

import asyncio
import io
import json

from PIL import Image

from bench.served.clients.openai import build_messages, read_events
from bench.served.clients.talk import Talk
from bench.served.workload import (
    HISTORY_TOKENS,
    IMAGE_SIDE_PIXELS,
    QUESTION_TOKENS,
    Workload,
    count_words,
)

WORDS = ["bako", "dine", "fesu", "gola"]


def test_a_seed_names_pictures_and_questions() -> None:
    """Every contender of a round is asked the same; the next round has new pictures."""
    one, same, other = Workload(WORDS, "1"), Workload(WORDS, "1"), Workload(WORDS, "2")
    opening = one.draw_opening()
    assert opening == same.draw_opening()
    assert opening.picture != other.draw_opening().picture
    assert opening.picture != one.draw_opening().picture
    picture = Image.open(io.BytesIO(opening.picture))
    assert (IMAGE_SIDE_PIXELS, IMAGE_SIDE_PIXELS) == picture.size
    assert count_words(opening.question) == QUESTION_TOKENS
    assert HISTORY_TOKENS / 2 < count_words(one.draw_long_opening().question) < HISTORY_TOKENS


def test_history_travels_with_the_picture_in_front() -> None:
    """The picture stands in the first question alone, and answers come back as they were."""
    talk = Talk(b"png", [("first", "answer")])
    messages = build_messages(talk, "second")
    assert ["user", "assistant", "user"] == [message["role"] for message in messages]
    assert ["image_url", "text"] == [part["type"] for part in messages[0]["content"]]
    assert messages[1]["content"] == "answer"
    assert [{"type": "text", "text": "second"}] == messages[2]["content"]


async def test_events_are_read_across_chunks() -> None:
    """An event may end in another chunk than it began in; the mark of the end is no event."""
    events = b'data: {"a": 1}\r\n\r\ndata: {"b": 2}\n\ndata: [DONE]\n\n'
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (events[:9], events[9:]))
    reader = asyncio.StreamReader()
    reader.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n")
    reader.feed_eof()
    assert [json.loads('{"a": 1}'), {"b": 2}] == [event async for event in read_events(reader)]
