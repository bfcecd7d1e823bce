"""The interface of `servers.small`: gRPC with JSON in and text out."""

import base64
import json
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from bench.served.clients.talk import AnswerFailed, Talk

METHOD = "/bench.Chat/Answer"
MAX_MESSAGE_BYTES = 64 << 20


class SmallClient:
    """Talks to one of the benchmark's own small servers.

    Args:
        port: on this machine.
    """

    def __init__(self, port: int) -> None:
        options = [("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
        self._call = self._channel.unary_stream(METHOD)

    async def ask(self, talk: Talk, question: str, max_tokens: int) -> AsyncIterator[str]:
        """See `Interface.ask`: the whole history goes along each time."""
        request = {
            "picture": base64.b64encode(talk.picture).decode(),
            "turns": talk.turns,
            "question": question,
            "max_tokens": max_tokens,
        }
        try:
            async for message in self._call(json.dumps(request).encode()):
                piece = json.loads(message)
                talk.prompt_tokens = piece.get("prompt_tokens", talk.prompt_tokens)
                if piece.get("text"):
                    yield piece["text"]
        except grpc.aio.AioRpcError as error:
            raise AnswerFailed(f"{error.code().name}: {error.details()}") from error

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()
