"""ListChats: every page can be sent, however large the chats are that it tells."""

import asyncio

from app_in_process import run_app
from llavachat import Client
from llavachat_server.rpc.auth import OPEN_TENANT
from scripted_engine import ScriptedEngine
from store_records import end, make_chat, make_turn

CHAR = "\U0001f600"
FIELDS = {
    "system_prompt": CHAR * 16_384,
    "labels": {f"{number:02}" + CHAR * 62: CHAR * 64 for number in range(16)},
}
"""The most that the embedded model's profile lets a chat have beside its turns."""

NUM_CHATS = 1001


async def test_a_thousand_large_chats_are_listed() -> None:
    """In pages that can be sent: a thousand of these take more than a message may."""
    async with run_app(ScriptedEngine()) as app:
        ids = []
        for number in range(NUM_CHATS):
            chat = make_chat(OPEN_TENANT, minutes=-number, turns=(end(make_turn()),), **FIELDS)
            await app.app._service.desk.store.add_chat(chat, ())
            ids.append(chat.id)

        def list_ids() -> list[str]:
            with Client(app.address) as client:
                return [record.id for record in client.chats(page_size=1000)]

        assert ids == await asyncio.to_thread(list_ids)
