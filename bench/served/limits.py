"""How far from what the machine's memory allows each contender decodes.

Every step reads the decoder's weights once for all chats and each chat's keys and values once;
dividing the measured bandwidth by that gives a rate that nothing on the machine can pass. At many
chats a processor reaches the end of its arithmetic before; the limit stands for the memory alone.
"""

from typing import Any

from bench.served.figures import median
from bench.served.goals import collect
from bench.served.titles import TITLES
from bench.served.workload import ANSWER_TOKENS, NUM_IMAGE_TOKENS, QUESTION_TOKENS, TEMPLATE_TOKENS

WEIGHT_BYTES = 107_900_000
"""Read for a token: 8 layers of 4 x 512^2 + 3 x 512 x 1,344 numbers and a head of 4,032 x 512,
float32."""
BYTES_PER_KEPT_TOKEN = 8 * 2 * 512 * 4
"""Keys and values of one token: 8 layers, two of them, 512 numbers, float32."""
KEPT_TOKENS = TEMPLATE_TOKENS + NUM_IMAGE_TOKENS + QUESTION_TOKENS + ANSWER_TOKENS // 2
"""A short chat in the middle of its answer."""


def find_limit(bandwidth: float, num_chats: int) -> float:
    """Tokens a second of all chats together that reading memory allows.

    Args:
        bandwidth: GB/s.
        num_chats: side by side.
    """
    step_bytes = WEIGHT_BYTES + num_chats * KEPT_TOKENS * BYTES_PER_KEPT_TOKEN
    return num_chats * bandwidth * 1e9 / step_bytes


def describe_limits(report: dict[str, Any]) -> str:
    """The share of the limit that each contender reaches, as a table; "" without a bandwidth."""
    bandwidths = [value for value in collect(report, "bandwidth", "bandwidth") if value]
    if not bandwidths:
        return ""
    bandwidth = median(bandwidths)
    chats = report["scale"]["chats"]
    limits = {number: find_limit(bandwidth, number) for number in chats}
    header = ["share of the limit", "one stream", *(f"{number}, all" for number in chats)]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    cells = [f"{limits[number]:,.0f} tok/s" for number in chats]
    first = f"{find_limit(bandwidth, 1):,.0f} tok/s"
    lines.append(f"| {' | '.join(['limit', first, *cells])} |")
    for name, title in TITLES.items():
        keys = {"single": 1, **{f"total_{number}": number for number in chats}}
        shares = []
        for key, number in keys.items():
            found = [value for value in collect(report, name, key) if value]
            limit = find_limit(bandwidth, number)
            shares.append(f"{100 * median(found) / limit:.0f} %" if found else "-")
        if any(share != "-" for share in shares):
            lines.append(f"| {' | '.join([title, *shares])} |")
    return (
        f"Memory was read at {bandwidth:.1f} GB/s (median of the rounds), and a step reads at "
        f"least {WEIGHT_BYTES / 1e6:.1f} MB of weights and the chats' keys and values. A row "
        "of all chats includes pictures and prompts.\n\n" + "\n".join(lines)
    )
