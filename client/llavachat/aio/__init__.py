"""The client for asyncio: `AsyncClient`, `AsyncChat`, `AsyncReply`, the twins of `Client`,
`Chat` and `Reply`."""

from llavachat.aio.chat import AsyncChat
from llavachat.aio.client import AsyncClient
from llavachat.aio.reply import AsyncReply

__all__ = ["AsyncChat", "AsyncClient", "AsyncReply"]
