"""How long the store takes: commits, chats, pages, pictures.

    python -m bench.store [--store sqlite|postgresql://...] [--chats 100000] [--folder FOLDER]

Prints a table. A turn costs the store two commits (its beginning and its end) and one reading of
its chat; the share of a turn is that, by what a turn takes on the server that answers it.
"""

import argparse
import asyncio
import io
import os
import platform
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from llavachat_server.chats.record import Chat, RequestClaim, Turn
from llavachat_server.chats.sql import rows, schema
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.chats.store import ChatQuery
from llavachat_server.images.intake import ImageInfo, ImageLimits, decode
from llavachat_server.values import (
    Finished,
    FinishReason,
    ModelInfo,
    Quantization,
    Sampling,
    Timings,
    Usage,
)
from PIL import Image

ANSWER = "The picture shows a grey cat on a wooden chair beside a window. " * 4
QUESTION_IDS = tuple(range(1000, 1040))
ANSWER_IDS = tuple(range(2000, 2064))
ROOT_FOLDER = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.store", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--chats", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=300, help="turns timed one after another")
    parser.add_argument("--folder", help="where the file is made (default: beside this script)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or ROOT_FOLDER / "bench") as folder:
        url = f"sqlite:///{folder}/chats.db" if options.store == "sqlite" else options.store
        began = time.perf_counter()
        store = SqlStore(url)
        print(
            f"machine: {platform.machine()}, {os.cpu_count()} CPUs, Python "
            f"{platform.python_version()}; store: {url.split(':')[0]}"
        )
        print(f"open a new database: {1000 * (time.perf_counter() - began):.0f} ms")
        try:
            asyncio.run(measure(store, options.chats, options.turns))
        finally:
            store.close()


async def measure(store: SqlStore, num_chats: int, num_turns: int) -> None:
    """All measurements on one store."""
    print(f"{'':50}{'p50 ms':>9}{'p99 ms':>9}{'n':>7}")
    await measure_turns(store, num_turns, "alone, an empty store")
    await measure_many(store, 16, num_turns // 4)
    await measure_pictures(store)
    fill(store, num_chats)
    await measure_turns(store, num_turns, f"alone, {num_chats:,} chats")
    await measure_lists(store, num_chats)


async def measure_turns(store: SqlStore, num_turns: int, label: str) -> None:
    """Turns one after another: begin, end, read."""
    begins, ends, reads = [], [], []
    for _ in range(num_turns):
        chat, turn = make_chat("bench"), make_turn()
        claim = RequestClaim("bench", secrets.token_hex(16), "0" * 64, chat.id, turn.id)
        begins.append(await clock(lambda c=chat, t=turn, k=claim: store.begin_chat(c, t, (), k)))
        ended = end(turn)
        ends.append(await clock(lambda c=chat, t=ended: store.finish_turn("bench", c.id, t)))
        reads.append(await clock(lambda c=chat: store.get_chat("bench", c.id)))
    show(f"commit a turn's beginning, {label}", begins)
    show(f"commit a turn's end, {label}", ends)
    show(f"read a chat, {label}", reads)


async def measure_many(store: SqlStore, num_callers: int, num_turns: int) -> None:
    """Turns of many chats at once: one flush serves several."""
    ends: list[float] = []

    async def call() -> None:
        for _ in range(num_turns):
            chat, turn = make_chat("bench"), make_turn()
            await store.begin_chat(chat, turn, (), None)
            ended = end(turn)
            ends.append(await clock(lambda c=chat, t=ended: store.finish_turn("bench", c.id, t)))

    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(num_callers)))
    seconds = time.perf_counter() - began
    show(f"commit a turn's end, {num_callers} chats at once", ends)
    print(f"{'turns per second, so':50}{len(ends) / seconds:>9.0f}")


async def measure_pictures(store: SqlStore) -> None:
    """A photograph of each size: kept with its chat, and read again."""
    for side in (336, 1024, 4096):
        noise = Image.effect_noise((side // 8, side // 8), 60).resize((side, side))
        photograph = Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180)))
        file = io.BytesIO()
        photograph.save(file, "JPEG", quality=90)
        picture = decode(file.getvalue(), ImageLimits(max_bytes=64 * 1024**2))
        keeps, reads = [], []
        for _ in range(5):
            chat = make_chat("bench")
            turn = replace(make_turn(), images=(picture.info,))
            keeps.append(
                await clock(lambda c=chat, t=turn, p=picture: store.begin_chat(c, t, (p,), None))
            )
            reads.append(await clock(lambda p=picture: store.get_picture("bench", p.info.id)))
            await store.delete_chat("bench", chat.id)
        show(f"keep a chat with a {side} x {side} picture", keeps)
        show("read that picture", reads)


async def measure_lists(store: SqlStore, num_chats: int) -> None:
    """Pages of a listing."""
    queries = {
        "the first 50": ChatQuery(),
        "50 with a label that 1 of 2 has": ChatQuery(labels={"half": "0"}),
        "50 with a label that 1 of 10,000 has": ChatQuery(labels={"rare": "7"}),
        "50 with a label that none has": ChatQuery(labels={"rare": "none"}),
        "50 with a label that the oldest 1 of 20 have": ChatQuery(labels={"old": "1"}),
        "50 with two labels that none has both of": ChatQuery(labels={"half": "0", "odd": "1"}),
        "1,000": ChatQuery(limit=1000),
    }
    page = await store.list_chats("lists", ChatQuery(limit=1))
    middle = page.chats[0].updated_at - timedelta(seconds=num_chats / 2)
    queries["50 used before the middle"] = ChatQuery(updated_before=middle)
    for label, query in queries.items():
        times = [await clock(lambda q=query: store.list_chats("lists", q)) for _ in range(200)]
        show(f"list {label}", times)


def fill(store: SqlStore, num_chats: int) -> None:
    """Many chats of one turn, at once and not timed."""
    began = time.perf_counter()
    now = datetime.now(UTC)
    with store._database.writing.begin() as connection:
        for start in range(0, num_chats, 1000):
            chats, turns, marks = [], [], []
            for number in range(start, min(start + 1000, num_chats)):
                key = 10_000_000 + number
                time_of_it = now - timedelta(seconds=num_chats - number)
                labels = {"half": str(number % 2), "rare": str(number % 10_000)}
                labels |= {"odd": "1"} if number % 2 else {}
                labels |= {"old": "1"} if number < num_chats // 20 else {}
                chat = replace(
                    make_chat("lists"), labels=labels, created_at=time_of_it, updated_at=time_of_it
                )
                chats.append({**rows.chat_row(chat), "key": key, "num_turns": 1})
                marks += rows.label_rows(chat, key)
                row = rows.turn_row(end(make_turn()))
                turns.append({**row, "key": key, "chat_key": key, "position": 0, "build_key": 1})
            connection.execute(schema.chats.insert(), chats)
            connection.execute(schema.labels.insert(), marks)
            connection.execute(schema.turns.insert(), turns)
    print(f"(filled with {num_chats:,} chats in {time.perf_counter() - began:.0f} s)")


async def clock(call: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds of one call."""
    began = time.perf_counter()
    await call()
    return 1000 * (time.perf_counter() - began)


def show(label: str, times: list[float]) -> None:
    """One line of the table."""
    slow = sorted(times)[min(len(times) - 1, round(0.99 * len(times)))]
    print(f"{label:50}{statistics.median(times):>9.2f}{slow:>9.2f}{len(times):>7}", flush=True)


def make_chat(tenant: str) -> Chat:
    """A new chat."""
    now = datetime.now(UTC)
    return Chat(secrets.token_hex(16), tenant, None, {}, now, now)


def make_turn(images: tuple[ImageInfo, ...] = ()) -> Turn:
    """A running turn of the usual size."""
    model = ModelInfo("llava-1.5-7b", "llava", "f" * 40, Quantization.NF4, "e" * 64)
    return Turn(
        secrets.token_hex(16),
        None,
        "What is on the picture, and where?",
        images,
        QUESTION_IDS,
        (),
        640,
        Sampling(256),
        model,
        datetime.now(UTC),
        device="NVIDIA A10G",
        library_versions={"torch": "2.13.0"},
    )


def end(turn: Turn) -> Turn:
    """Its end."""
    usage, timings = Usage(40, 576, 500, 64, 3400), Timings(0.001, 0.02, 0.1, 0.121, 0.9)
    return turn.end(ANSWER, Finished(FinishReason.EOS, None, ANSWER_IDS, usage, timings))


if __name__ == "__main__":
    main()
