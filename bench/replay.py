"""Do recorded answers come out again? Asks side by side, replays one at a time.

    python -m bench.replay ADDRESS [--chats 16] [--temperature 1.0]

The turns are answered in one another's company and replayed alone, so that a difference is what
company did to the arithmetic. The server must run; its chats are erased again.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor

from llavachat import Client
from PIL import Image

COLOURS = ("red", "green", "blue", "yellow")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.replay", description=__doc__.splitlines()[0]
    )
    parser.add_argument("address")
    parser.add_argument("--chats", type=int, default=16)
    parser.add_argument("--temperature", type=float, default=1.0)
    options = parser.parse_args()
    with Client(options.address, timeout_seconds=600.0) as client:
        info = client.server_info()
        print(f"{info.model.profile}, {info.model.quantization}, on {info.device}")

        def ask(number: int) -> tuple[str, str]:
            picture = Image.new("RGB", (64, 64), COLOURS[number % len(COLOURS)])
            reply = client.start(
                picture,
                f"Tell me about picture {number}.",
                temperature=options.temperature,
                seed=number,
                max_tokens=64,
            )
            reply.read()
            return reply.chat_id, reply.turn_id

        with ThreadPoolExecutor(options.chats) as pool:
            turns = list(pool.map(ask, range(options.chats)))
        verdicts = [client.chat(chat_id).replay(turn_id) for chat_id, turn_id in turns]
        for chat_id, _ in turns:
            client.delete_chat(chat_id)
    same = sum(verdict.identical for verdict in verdicts)
    print(
        f"temperature {options.temperature}: {same} of {len(verdicts)} answers came out again "
        f"token by token; first differences at "
        f"{[v.first_difference_token for v in verdicts if not v.identical]}"
    )


if __name__ == "__main__":
    main()
