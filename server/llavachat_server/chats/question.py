"""What a caller asks, after the contract's checks and before anything was looked up. Plain values.

It must not know gRPC: `rpc.requests` makes these from messages.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from llavachat_server.values import Sampling

T = TypeVar("T")

_SEED_BITS = 32
"""Short enough to be typed again by a person."""


class OverflowPolicy(Enum):
    """What to do when a chat has outgrown the model's context; see the contract."""

    ERROR = "error"
    DROP_OLDEST_TURNS = "drop_oldest_turns"


@dataclass(frozen=True, slots=True)
class SamplingWishes:
    """How the caller wants the answer drawn; None is "as the profile says"."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None

    def resolve(self, defaults: Sampling) -> Sampling:
        """Fill in what was left open; a random answer without a seed gets one."""

        def pick(wish: T | None, default: T) -> T:
            return default if wish is None else wish

        temperature = pick(self.temperature, defaults.temperature)
        seed = self.seed
        if seed is None:
            seed = secrets.randbits(_SEED_BITS) if temperature > 0 else 0
        return Sampling(
            max_tokens=pick(self.max_tokens, defaults.max_tokens),
            temperature=temperature,
            top_p=pick(self.top_p, defaults.top_p),
            top_k=pick(self.top_k, defaults.top_k),
            repetition_penalty=pick(self.repetition_penalty, defaults.repetition_penalty),
            seed=seed,
            stop=pick(self.stop, defaults.stop),
        )


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A picture as a request gives it: the file's bytes, its address, or the id of a known one.

    `num_frames` is the caller's word on a moving picture of which the first frame alone came; 0 or
    1: as the file says.
    """

    data: bytes | None = None
    image_id: str | None = None
    url: str | None = None
    num_frames: int = 0


@dataclass(frozen=True, slots=True)
class NewChat:
    """What only the first question of a chat says."""

    system_prompt: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a chat a question stands.

    `parent_turn_id` None goes on from the latest finished turn; "" asks a first question again.
    """

    chat_id: str
    parent_turn_id: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Args:
        where: a new chat, or a place in one.
        prompt: the user's text.
        images: the pictures before it.
        wishes: how the answer is to be drawn.
        overflow: what to do when the context is full.
        request_id: "" when the call is not to be repeated safely.
        body_sha256: over everything else that was asked; compared when a request_id comes again.
    """

    where: NewChat | Place
    prompt: str
    images: tuple[ImageSource, ...] = ()
    wishes: SamplingWishes = SamplingWishes()
    overflow: OverflowPolicy = OverflowPolicy.ERROR
    request_id: str = ""
    body_sha256: str = ""
