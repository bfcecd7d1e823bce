"""The chat completions interface that most servers speak, streamed as server-sent events.

HTTP/1.1 by hand on one connection an answer: the load's own computing would otherwise be most of
what two cores do beside a small model.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from bench.served.clients.talk import AnswerFailed, Talk

READ_BYTES = 1 << 20


class OpenAiClient:
    """Talks to ``/v1/chat/completions``.

    Args:
        port: on this machine.
        model: the name to ask for.
        extra: fields of the request that this server understands besides.
    """

    def __init__(self, port: int, model: str, extra: Mapping[str, Any] | None = None) -> None:
        self._port = port
        self._model = model
        self._extra = dict(extra or {})

    async def ask(self, talk: Talk, question: str, max_tokens: int) -> AsyncIterator[str]:
        """See `Interface.ask`: the whole history goes along each time."""
        body = json.dumps(
            {
                "model": self._model,
                "messages": build_messages(talk, question),
                "max_tokens": max_tokens,
                "temperature": 0.0,
                "stream": True,
                "stream_options": {"include_usage": True},
                **self._extra,
            }
        ).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=READ_BYTES)
        try:
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nAccept: text/event-stream\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body)
            )
            writer.write(body)
            await writer.drain()
            async for event in read_events(reader):
                if "error" in event:
                    raise AnswerFailed(json.dumps(event["error"])[:500])
                usage = event.get("usage")
                if usage:
                    talk.prompt_tokens = int(usage["prompt_tokens"])
                for choice in event.get("choices", ()):
                    text = (choice.get("delta") or {}).get("content")
                    if text:
                        yield text
        finally:
            writer.close()

    async def close(self) -> None:
        """Nothing is kept open."""


def build_messages(talk: Talk, question: str) -> list[dict[str, Any]]:
    """The chat and its next question; the picture stands in the first one."""
    picture = base64.b64encode(talk.picture).decode()
    address = {"url": f"data:image/png;base64,{picture}"}
    messages: list[dict[str, Any]] = []
    for number, (asked, answer) in enumerate([*talk.turns, (question, "")]):
        text = {"type": "text", "text": asked}
        parts = [{"type": "image_url", "image_url": address}, text] if number == 0 else [text]
        messages.append({"role": "user", "content": parts})
        if number < len(talk.turns):
            messages.append({"role": "assistant", "content": answer})
    return messages


async def read_events(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The events of a response.

    Raises:
        AnswerFailed: its status is not 200.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = head.split(" ", 2)[1]
    if status != "200":
        raise AnswerFailed(f"{status}: {(await reader.read(2000)).decode('utf-8', 'replace')}")
    is_chunked = "transfer-encoding: chunked" in head.lower()
    rest = b""
    while True:
        block = await (read_chunk(reader) if is_chunked else reader.read(READ_BYTES))
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield json.loads(data)


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk; empty at the end."""
    size = int((await reader.readline()).split(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:-2]
