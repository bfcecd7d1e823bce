"""llavachat's own client: the server keeps the chat, only the question travels."""

from collections.abc import AsyncIterator

from llavachat import AsyncClient, LlavaChatError

from bench.served.clients.talk import AnswerFailed, Talk


class LlavachatClient:
    """Talks to a llavachat server.

    Args:
        port: on this machine.
    """

    def __init__(self, port: int) -> None:
        self._client = AsyncClient(f"127.0.0.1:{port}", resume_seconds=0)

    async def ask(self, talk: Talk, question: str, max_tokens: int) -> AsyncIterator[str]:
        """See `Interface.ask`."""
        if talk.handle is None:
            reply = self._client.start(
                talk.picture, question, max_tokens=max_tokens, temperature=0.0
            )
        else:
            reply = talk.handle.ask(question, max_tokens=max_tokens, temperature=0.0)
        try:
            async for text in reply:
                yield text
        except LlavaChatError as error:
            raise AnswerFailed(str(error)) from error
        talk.handle = reply.chat
        talk.prompt_tokens = reply.usage.prompt_tokens

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()
