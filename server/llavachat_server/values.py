"""The words the rooms of the server share: plain, frozen values without behaviour.

Nothing here may import torch, gRPC, or another module of the server.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from PIL import Image

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""A hub's id of a model, OWNER/NAME. Neither begins with a dot: ``./model`` is a folder."""


def hash_request_id(request_id: str) -> str:
    """A caller's own id of a request as what is never erased may name it; "" for none.

    The id may be a file's name, and so somebody's: whoever knows it finds it again by this.
    """
    return hashlib.sha256(request_id.encode()).hexdigest() if request_id else ""


class FinishReason(Enum):
    """Why an answer ended; the names are those of the contract."""

    EOS = "eos"
    STOP_SEQUENCE = "stop_sequence"
    MAX_TOKENS = "max_tokens"
    MAX_CONTEXT = "max_context"
    TIME_LIMIT = "time_limit"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"
    ERROR = "error"


class Quantization(Enum):
    """The form of the language model's weights: as published, LLM.int8(), or 4-bit NormalFloat."""

    NONE = "none"
    INT8 = "int8"
    NF4 = "nf4"


MAX_TURNS_PER_CHAT = 10_000
"""The most that a server can be set to let a chat have."""

MAX_TEMPERATURE = 2.0
MAX_REPETITION_PENALTY = 2.0
MAX_SEED = 2**64 - 1
MAX_STOPS = 8
MAX_STOP_CHARS = 64
"""Bounds of ``GenerationParams`` in the contract; those of a profile are not among them."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn; every value resolved, none left to a default.

    Ranges are those of ``GenerationParams`` in the contract; `temperature` 0 is greedy.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn; see ``Usage`` in the contract."""

    text_tokens: int
    image_tokens: int
    cached_tokens: int
    completion_tokens: int
    context_left_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one turn went, in seconds; see ``Timings`` in the contract."""

    queue_seconds: float
    vision_seconds: float
    prefill_seconds: float
    first_token_seconds: float
    decode_seconds: float


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a turn: "intake", "queue", "vision", "prefill", "decode", "commit_question" or
    "commit_answer"; from when to when, by ``time.perf_counter``.
    """

    name: str
    began_seconds: float
    ended_seconds: float


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is at this moment, and what its caches have done since its start.

    Args:
        num_running, num_queued: requests inside, and in the line.
        cache_tokens: places of the key-value cache.
        held_tokens: of them, those of running requests.
        kept_tokens: of them, those that hold a prefix which nobody uses at the moment.
        image_hits, image_misses: pictures whose features were there, or had to be computed.
        num_restarts: how often the generation loop was begun anew.
        silent_step_at_seconds: by ``time.monotonic``, when it was last heard of work that gave
            nobody a token: a step with a part of a long prompt, a picture; 0 before the first.
    """

    num_running: int = 0
    num_queued: int = 0
    cache_tokens: int = 0
    held_tokens: int = 0
    kept_tokens: int = 0
    image_hits: int = 0
    image_misses: int = 0
    num_restarts: int = 0
    silent_step_at_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answers, in which form; see ``ModelInfo`` in the contract."""

    profile: str
    name: str
    revision: str
    quantization: Quantization
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a caller must know of the engine.

    `num_image_tokens` is the width of one picture in the context; `max_tokens` is the longest
    answer that may be asked for.
    """

    model: ModelInfo
    device: str
    context_tokens: int
    max_tokens: int
    num_image_tokens: int
    vocab_size: int
    image_token_id: int
    max_running: int
    max_queued: int
    library_versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EngineImage:
    """A picture of a request.

    Args:
        id: of its pixels: two pictures with one id are the same picture.
        pixels: RGB and upright; or how to read them, for a picture whose features the engine may
            have already. What the reading raises, where it is an `EngineError`, the request does.
    """

    id: str
    pixels: Image.Image | Callable[[], Awaitable[Image.Image]] = field(compare=False)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One answer to generate.

    Args:
        request_id: unique among running requests.
        token_ids: the prompt; one `image_token_id` stands for each whole picture.
        images: the pictures in the order of their placeholders. The same picture shares its
            features and its cached prefix.
        sampling: resolved parameters.
        time_limit_seconds: the longest the turn may take, waiting included.
        tenant: prefixes are shared within one tenant only, and places are given to tenants by
            turns. "" for a server without tenants.
        owner: what the cached prefix and pictures are forgotten with, such as a chat's id; see
            `Engine.forget`. "": they stay as long as there is room.
    """

    request_id: str
    token_ids: tuple[int, ...]
    images: tuple[EngineImage, ...]
    sampling: Sampling
    time_limit_seconds: float
    tenant: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits; position 1 is next in line."""

    position: int


@dataclass(frozen=True, slots=True)
class Delta:
    """Whole characters to append to the answer.

    `char_offset` counts characters of the answer before `text`.
    """

    text: str
    char_offset: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a request.

    `token_ids` are the answer's ids without a closing eos; with a stop sequence, cut so that
    they spell the delivered text (as closely as tokens allow). `phases`: what the engine did when.
    """

    finish_reason: FinishReason
    matched_stop: str | None
    token_ids: tuple[int, ...]
    usage: Usage
    timings: Timings
    phases: tuple[Phase, ...] = ()


EngineEvent = Queued | Delta | Finished


@dataclass
class InvalidField(Exception):
    """A field of a request is wrong, whoever finds it.

    Args:
        field: its path in the request, as in "images[0].data".
        expected: what would be right; fit for the caller's eyes, as is the path.
    """

    field: str
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: {self.expected}"


class EngineError(Exception):
    """The engine refused or failed a request. The message is fit for the caller's eyes."""


@dataclass
class ContextFull(EngineError):
    """The prompt leaves no room for an answer. Counts in tokens.

    `history_tokens` are those of earlier turns, where the one who raises tells them apart.

    Args:
        can_drop: it would fit without the turns before it, and they were not to be left out.
        can_shorten: a shorter question would fit, without the turns before it.
        can_keep_turns: a shorter question would fit beside the turns before it.
        can_leave_pictures: without the chat's pictures and the turns before it would fit the
            question as it is, or, where no question fits beside the pictures, a shorter one.
        picture_tokens: of all pictures of the chat.
    """

    text_tokens: int
    image_tokens: int
    context_tokens: int
    history_tokens: int = 0
    can_drop: bool = False
    can_shorten: bool = True
    can_keep_turns: bool = True
    can_leave_pictures: bool = False
    picture_tokens: int = 0

    def __str__(self) -> str:
        total = self.text_tokens + self.image_tokens + self.history_tokens
        return (
            f"the prompt has {total} tokens ({self.text_tokens} text, {self.image_tokens} image, "
            f"{self.history_tokens} history) and the model's context holds {self.context_tokens}"
        )


@dataclass
class QueueFull(EngineError):
    """As many turns run and wait as may. Try again after `retry_after_seconds`."""

    retry_after_seconds: float

    def __str__(self) -> str:
        return "the server is full"


@dataclass
class EngineUnavailable(EngineError):
    """The engine is starting, stopping or restarting. Try again after `retry_after_seconds`."""

    retry_after_seconds: float

    def __str__(self) -> str:
        return "the model is not ready"


@dataclass
class EngineFailed(EngineError):
    """The engine failed while it worked on this request; others may be well."""

    reason: str = field(default="the model failed on this request")

    def __str__(self) -> str:
        return self.reason
