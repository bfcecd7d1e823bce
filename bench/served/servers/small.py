"""A small gRPC server around a function that answers: what a library without a server gets.

JSON comes in and text goes out, a message for each piece; see `clients.small`. The standard
library and grpcio alone, since it runs in other environments.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
from PIL import Image

MAX_MESSAGE_BYTES = 64 << 20
NUM_THREADS = 40
"""More than the chats that are asked side by side."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: `turns` are earlier questions with their answers."""

    picture: Image.Image
    turns: list[tuple[str, str]]
    question: str
    max_tokens: int

    def build_messages(self) -> list[dict[str, Any]]:
        """The chat in the form that chat templates take, the picture first."""
        messages: list[dict[str, Any]] = []
        for number, (asked, answer) in enumerate([*self.turns, (self.question, "")]):
            text = {"type": "text", "text": asked}
            parts = [{"type": "image"}, text] if number == 0 else [text]
            messages.append({"role": "user", "content": parts})
            if number < len(self.turns):
                parts = [{"type": "text", "text": answer}]
                messages.append({"role": "assistant", "content": parts})
        return messages


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer; `prompt_tokens` once it is known."""

    text: str = ""
    prompt_tokens: int | None = None


Answer = Callable[[Question], Iterator[Piece]]


def serve(port: int, answer: Answer) -> None:
    """Serve until the process is ended.

    Args:
        port: of this machine.
        answer: called on a thread for each question; its pieces are sent as they come.
    """

    def handle(body: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for piece in answer(read_question(body)):
            fields = {"text": piece.text}
            if piece.prompt_tokens is not None:
                fields["prompt_tokens"] = piece.prompt_tokens
            yield json.dumps(fields).encode()

    server = grpc.server(
        futures.ThreadPoolExecutor(NUM_THREADS),
        options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)],
    )
    methods = {"Answer": grpc.unary_stream_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Chat", methods)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def read_question(body: bytes) -> Question:
    """A request's body."""
    fields = json.loads(body)
    picture = Image.open(io.BytesIO(base64.b64decode(fields["picture"]))).convert("RGB")
    turns = [(asked, answer) for asked, answer in fields["turns"]]
    return Question(picture, turns, fields["question"], fields["max_tokens"])
