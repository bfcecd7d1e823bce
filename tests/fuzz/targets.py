"""What the fuzzers throw bytes at: the wire, the prompt builder and the picture intake.

Each target takes any bytes and raises only where the server has a bug: every refusal that the
server knows is an answer. `make fuzz` drives them by coverage, and
``tests/integration/test_fuzz_targets.py`` runs them on what is known to be hard.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import llavachat_server
from google.protobuf.message import DecodeError, Message
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.engine.prompt import PromptBuilder, SpecialTokens
from llavachat_server.images.intake import BadImage, ImageLimits, check_header, decode
from llavachat_server.rpc import requests
from llavachat_server.rpc.requests import RequestLimits
from llavachat_server.values import InvalidField
from tokenizers import Tokenizer

_FOLDER = Path(llavachat_server.__file__).parent / "models" / "shapes"
_BOS, _EOS = 1, 2
_IMAGE = Tokenizer.from_file(str(_FOLDER / "tokenizer.json")).token_to_id("<image>")
_PROMPTS = PromptBuilder.from_folder(_FOLDER, SpecialTokens(_BOS, _EOS, _IMAGE))
_LIMITS = RequestLimits(
    max_prompt_chars=16_384, max_images_per_turn=4, max_tokens=512, vocab_size=1280
)
_IMAGE_LIMITS = ImageLimits(max_pixels=1_000_000)
"""Small, so that a fuzzer decodes many."""
_MAX_PICTURES = 4

_CHECKS: tuple[tuple[type[Message], Callable[..., object]], ...] = (
    (pb.StartChatRequest, lambda request: requests.start_question(request, _LIMITS)),
    (pb.ContinueChatRequest, lambda request: requests.continue_question(request, _LIMITS)),
    (pb.CountTokensRequest, lambda request: requests.count_question(request, _LIMITS)),
    (pb.ListChatsRequest, requests.chat_query),
    (pb.ResumeTurnRequest, requests.char_offset),
)


def read_request(data: bytes) -> None:
    """Bytes of a message as they come over the wire; the first byte chooses the method."""
    if not data:
        return
    kind, check = _CHECKS[data[0] % len(_CHECKS)]
    try:
        check(kind.FromString(data[1:]))
    except (DecodeError, InvalidField):
        return


def build_prompt(data: bytes) -> None:
    """Text that a user typed; the first byte chooses how many pictures stand before it."""
    if not data:
        return
    num_images = data[0] % (_MAX_PICTURES + 1)
    text = data[1:].decode("utf-8", errors="replace")
    check_structure(text, num_images)


def check_structure(text: str, num_images: int) -> None:
    """A first turn, an answer and a next turn: what is structure is ours alone.

    Raises:
        AssertionError: the text became structure, moved it, or did not come back as it went.
    """
    first = _PROMPTS.build_first_turn(text, num_images=num_images)
    following = _PROMPTS.build_next_turn(text, num_images=num_images)
    answer = _PROMPTS.build_answer(text)
    assert (1, 0, num_images) == tuple(first.count(token) for token in (_BOS, _EOS, _IMAGE))
    assert (0, 0, num_images) == tuple(following.count(token) for token in (_BOS, _EOS, _IMAGE))
    assert {_BOS, _EOS, _IMAGE}.isdisjoint(answer)
    whole = _PROMPTS.join_turns([(first, answer)], following)
    assert first == whole[: len(first)]
    assert (1, 1, 2 * num_images) == tuple(whole.count(token) for token in (_BOS, _EOS, _IMAGE))
    # Pictures stand where they would stand before any other question.
    assert _find_usual_pictures(num_images) == _find_pictures(first)


def take_picture(data: bytes) -> None:
    """Bytes of a file that claims to be a picture."""
    try:
        check_header(data, _IMAGE_LIMITS)
        picture = decode(data, _IMAGE_LIMITS)
    except BadImage:
        return
    assert picture.pixels.mode == "RGB"
    assert picture.pixels.width * picture.pixels.height <= _IMAGE_LIMITS.max_pixels


def _find_pictures(ids: tuple[int, ...]) -> list[int]:
    return [place for place, token in enumerate(ids) if token == _IMAGE]


@cache
def _find_usual_pictures(num_images: int) -> list[int]:
    return _find_pictures(_PROMPTS.build_first_turn("?", num_images=num_images))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "wire": read_request,
    "prompt": build_prompt,
    "picture": take_picture,
}
