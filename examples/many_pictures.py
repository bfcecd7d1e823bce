"""Ask the same about many pictures, a few at a time, and write the answers as JSON lines.

    python examples/many_pictures.py "What is in the picture?" pictures/*.jpg > answers.jsonl

stdout carries the answers in the order in which they come; the progress bar is on stderr. A
picture that fails is reported in its line and does not stop the others; so is one for which the
server had no room ten times. A server that is restarted amid the job is waited for, up to a minute:
the library asks again by itself. Needs rich, which
``pip install -c constraints.txt '.[cli]'`` brings, in a checkout.
"""

import argparse
import asyncio
import itertools
import json
import sys

from llavachat import AsyncClient, LimitReached, LlavaChatError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

MAX_TRIES = 10
"""A queue has room again soon; a store that is full does not get it by itself."""


async def ask_one(client: AsyncClient, picture: str, question: str) -> dict[str, object]:
    """Ask about one picture; wait as long as the server says when it is full."""
    for num_tries in itertools.count(1):
        reply = client.start(picture, question, temperature=0, labels={"job": "many-pictures"})
        try:
            answer = await reply.read()
        except LimitReached as error:
            if num_tries == MAX_TRIES:
                return {"picture": picture, "error": f"{error} It was asked {num_tries} times."}
            await asyncio.sleep(error.retry_after_seconds or 1)
        except LlavaChatError as error:
            return {"picture": picture, "error": str(error)}
        else:
            break
    return {"picture": picture, "answer": answer, "chat_id": reply.chat_id}


async def main() -> int:
    """Run the job; 1 when a picture failed."""
    parser = argparse.ArgumentParser(description="Ask the same about many pictures.")
    parser.add_argument("question")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--at-once", type=int, default=8, help="pictures in flight (default: 8)")
    arguments = parser.parse_args()
    in_flight = asyncio.Semaphore(arguments.at_once)
    num_failed = 0
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )

    async with AsyncClient.from_environment() as client:

        async def ask(picture: str) -> dict[str, object]:
            async with in_flight:
                return await ask_one(client, picture, arguments.question)

        with progress:
            bar = progress.add_task("Asking", total=len(arguments.pictures))
            for next_line in asyncio.as_completed([ask(name) for name in arguments.pictures]):
                line = await next_line
                num_failed += "error" in line
                print(json.dumps(line, ensure_ascii=False), flush=True)
                progress.advance(bar)
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
