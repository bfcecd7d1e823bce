"""Run by tests as a process: the server on an engine that never ends its first answer."""

import asyncio
import sys

from llavachat_server.app import App
from llavachat_server.ops import logs
from llavachat_server.resolution import resolve_profile
from llavachat_server.settings import load
from scripted_engine import Hold, ScriptedEngine


async def serve() -> None:
    """Serve until a signal says stop."""
    settings = load(sys.argv[1:])
    logs.set_up("json", settings.log_level)
    engine = ScriptedEngine("warm", Hold("So far"))
    app = App(settings, resolve_profile(settings), lambda *_: engine, lambda: load(sys.argv[1:]))
    await app.run()


asyncio.run(serve())
