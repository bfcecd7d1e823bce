"""The words of the client: plain, frozen values without behaviour.

Names and ranges are those of the contract, ``protos/llavachat/v1/chat.proto``. Nothing here may
know gRPC, the generated messages or the network. Times of day carry their time zone; every
duration is in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Literal


class FinishReason(Enum):
    """Why an answer ended."""

    UNSPECIFIED = "unspecified"
    """The turn still runs, or a newer server gave a reason that this client does not know."""
    EOS = "eos"
    """The model said that it was done."""
    STOP_SEQUENCE = "stop_sequence"
    """One of the stop texts came up."""
    MAX_TOKENS = "max_tokens"
    """The limit on the answer's tokens was reached."""
    MAX_CONTEXT = "max_context"
    """The model's context is full."""
    TIME_LIMIT = "time_limit"
    """The server's time limit for one turn was reached."""
    CANCELLED = "cancelled"
    """The caller stopped the answer, or was gone."""
    SHUTDOWN = "shutdown"
    """The server was stopping."""
    ERROR = "error"
    """The engine failed while it wrote; what came before is kept."""


class TurnState(Enum):
    """How far a turn has come."""

    UNSPECIFIED = "unspecified"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


class OverflowPolicy(Enum):
    """What to do when a chat has outgrown the model's context."""

    ERROR = "error"
    """Refuse the question: `ContextFull`."""
    DROP_OLDEST_TURNS = "drop_oldest_turns"
    """Leave the oldest turns out of the prompt; `Reply.trimmed` tells which."""


@dataclass(frozen=True, slots=True)
class Params:
    """How an answer is drawn. In a request, None leaves a value to the server's profile; in a
    reply, every value is set.

    Args:
        max_tokens: the longest answer in tokens, 1 up to the profile's limit.
        temperature: randomness, 0 to 2; 0 is greedy.
        top_p: keep the likeliest tokens that add up to this, over 0, at most 1.
        top_k: keep this many of the likeliest tokens; 0 sets no limit.
        repetition_penalty: over 0, at most 2; 1 changes nothing.
        seed: 0 to 2**64 - 1; the same seed, question and history give the same answer.
        stop: at most 8 texts of 1 to 64 characters; the answer ends before the first of them.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the server knows of a picture. Given instead of a picture, it names that picture
    without sending it again.

    `id` is the SHA-256 of the picture as the model sees it, in hexadecimal. `num_frames` is how
    many frames the picture had, counted up to 10,000: over 1, only the first was looked at. 0: the
    server does not know.
    """

    id: str
    width_pixels: int
    height_pixels: int
    num_tokens: int
    media_type: str
    num_frames: int = 0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answers, in which form: `quantization` is "none", "int8" or "nf4"."""

    profile: str
    name: str
    revision: str
    quantization: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn. `cached_tokens` are those of the prompt that were not computed again;
    `context_left_tokens` is the room for later turns."""

    text_tokens: int
    image_tokens: int
    cached_tokens: int
    completion_tokens: int
    context_left_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Text and picture tokens together."""
        return self.text_tokens + self.image_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one turn went, by the server's clock."""

    queue_seconds: float
    vision_seconds: float
    prefill_seconds: float
    first_token_seconds: float
    decode_seconds: float


@dataclass(frozen=True, slots=True)
class Started:
    """The turn has a place in its chat; `params` are resolved, the seed among them."""

    chat_id: str
    turn_id: str
    parent_turn_id: str | None
    model: ModelInfo
    params: Params
    images: tuple[ImageInfo, ...]
    server_start_time: datetime | None = None
    """When the server started, where it keeps chats in its memory alone. None: they outlive it."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The turn waits; position 1 is next in line."""

    position: int


@dataclass(frozen=True, slots=True)
class Delta:
    """Text to append, beginning at `char_offset` of the answer."""

    text: str
    char_offset: int


@dataclass(frozen=True, slots=True)
class ContextTrimmed:
    """Turns were left out of the prompt to make room, the oldest first."""

    turn_ids: tuple[str, ...]
    num_tokens_before: int
    num_tokens_after: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is whole and recorded."""

    finish_reason: FinishReason
    matched_stop: str | None
    usage: Usage
    timings: Timings


Event = Started | Queued | Delta | ContextTrimmed | Finished
"""What a stream delivers: `Started` first, `ContextTrimmed` where turns were left out, `Queued`
while the turn waits, `Delta` as the answer comes, `Finished` last."""


@dataclass(frozen=True, slots=True)
class ReplayChange:
    """One thing that differs between a turn's record and the server of today."""

    name: str
    recorded: str
    current: str


@dataclass(frozen=True, slots=True)
class ReplayVerdict:
    """How a replayed answer compares with its record.

    Args:
        identical: every token is the recorded one.
        first_difference_token: the first that is not, counted from 0. None: there is none.
        changes: what has changed since the record.
    """

    identical: bool
    first_difference_token: int | None
    changes: tuple[ReplayChange, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer, as the server recorded them."""

    id: str
    parent_turn_id: str | None
    prompt: str
    answer: str
    images: tuple[ImageInfo, ...]
    state: TurnState
    finish_reason: FinishReason
    params: Params
    usage: Usage | None
    timings: Timings | None
    model: ModelInfo
    create_time: datetime | None
    finish_time: datetime | None
    raw_prompt: str | None = None
    imported: bool = False
    """It came by an import: its answer and figures are as the import told them."""


@dataclass(frozen=True, slots=True)
class ChatRecord:
    """A chat as the server keeps it. `turns` is empty in a listing; parents come before their
    children."""

    id: str
    title: str
    system_prompt: str | None
    labels: Mapping[str, str]
    create_time: datetime | None
    update_time: datetime | None
    num_turns: int
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatArchive:
    """A chat with its pictures, on its way out of a server or into one.

    `pictures` are PNG files by `ImageInfo.id`; `originals` the files in which some of them came,
    with all their metadata.
    """

    chat: ChatRecord
    pictures: Mapping[str, bytes]
    originals: Mapping[str, bytes] = field(default_factory=dict)


ExportFormat = Literal["json", "markdown", "html"]
"""JSON for programs and for `Client.import_chat`, Markdown and HTML for people."""


@dataclass(frozen=True, slots=True)
class ChatPage:
    """A page of a listing; `next_page_token` is "" on the last."""

    chats: tuple[ChatRecord, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class TokenCount:
    """How many tokens a question would use; `context_left_tokens` is the room for its answer."""

    text_tokens: int
    image_tokens: int
    history_tokens: int
    total_tokens: int
    context_tokens: int
    context_left_tokens: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server accepts."""

    max_image_bytes: int
    max_image_pixels: int
    max_image_side_pixels: int
    max_images_per_turn: int
    max_prompt_chars: int
    context_tokens: int
    max_tokens: int
    tokens_per_image: int
    max_running_turns: int
    max_queued_turns: int
    max_turn_seconds: float
    media_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Which model answers, and within which limits."""

    model: ModelInfo
    limits: Limits
    default_params: Params
    server_version: str
    device: str
    start_time: datetime | None
    library_versions: Mapping[str, str] = field(default_factory=dict)
    keeps_originals: bool = False
