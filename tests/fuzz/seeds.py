"""What the fuzzers begin with: good messages, prompts and pictures, to be bent from there."""

from llavachat.v1 import chat_pb2 as pb
from pictures import draw_shape, encode

HOSTILE_PIECES = (
    "<image>", "</s>", "<s>", "<unk>", "<pad>", "ASSISTANT:", "USER:", "<0x0A>", "<0xFF>", "▁",
    " ", "\n", "\r\n", "\t", "\u200b", "\u202e", "\ufeff", "é", "e\u0301", "🦙", "\U0001f468\u200d",
    "<ima", "ge>", "</", "s>", "</s></s>", "<|im_end|>", "[INST]", "###", "<image>\n", "ASSISTANT",
    "\\", "{{", "{% if %}", "%s", "%00", "'; --", "<script>", "\U0001d49c", "\ufdfa", "中文", "ไทย",
)  # fmt: skip
"""Text that looks like structure, or is hard for tokenizers."""


def list_seeds(target: str) -> list[bytes]:
    """The seeds of a target, see `fuzz.targets.TARGETS`."""
    return {"wire": _list_messages, "prompt": _list_prompts, "picture": _list_pictures}[target]()


def _list_messages() -> list[bytes]:
    image = pb.Image(data=encode(draw_shape("star", "blue", (24, 24))))
    params = pb.GenerationParams(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        repetition_penalty=1.1,
        seed=7,
        stop=["a"],
    )
    start = pb.StartChatRequest(
        images=[image, pb.Image(image_id="0" * 64), pb.Image(url="https://example.com/a.png")],
        prompt="What is this?",
        system_prompt="Be brief.",
        params=params,
        request_id="one",
        labels={"team": "blue"},
    )
    go_on = pb.ContinueChatRequest(
        chat_id="0" * 32, prompt="And now?", parent_turn_id="1", params=params
    )
    count = pb.CountTokensRequest(prompt="How many?", chat_id="0" * 32, parent_turn_id="1")
    listing = pb.ListChatsRequest(page_size=5, labels={"team": "blue"})
    listing.updated_since.FromSeconds(1)
    resume = pb.ResumeTurnRequest(chat_id="0" * 32, turn_id="1", char_offset=3)
    resume.server_start_time.FromSeconds(1)
    messages = (start, go_on, count, listing, resume)
    return [bytes([index]) + m.SerializeToString() for index, m in enumerate(messages)]


def _list_prompts() -> list[bytes]:
    return [b"\x01" + piece.encode() for piece in HOSTILE_PIECES]


def _list_pictures() -> list[bytes]:
    picture = draw_shape("star", "blue", (24, 16))
    return [
        encode(picture),
        encode(picture.convert("RGBA")),
        encode(picture.convert("P")),
        encode(picture.convert("LA")),
        encode(picture, "JPEG"),
        encode(picture, "JPEG", progressive=True),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture, "GIF"),
        encode(picture, "GIF", save_all=True, append_images=[draw_shape("star", "red", (24, 16))]),
        encode(picture, "WEBP"),
        encode(picture, "WEBP", lossless=True),
    ]
