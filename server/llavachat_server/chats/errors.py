"""What can go wrong between a caller and a chat. Messages are fit for the caller's eyes.

    ChatError
    +-- NotFound          no such chat, turn or picture of this tenant
    +-- TurnRunning       one turn at a time in a chat
    +-- RequestReused     the request_id was used with another body
    +-- TurnImported      an imported turn can not be replayed
    +-- OtherTokenizer    the turn's token ids are another tokenizer's
    +-- PromptNeverSeen   an imported turn's prompt is longer than any that the model saw
    +-- ReplayOverLimit   the server of today could not give so long an answer, or prompt
    +-- ReplayCut         a replay reached the time limit before it could be judged
    +-- ImportStalled     the body of an import did not come in time
    +-- TooManyAtOnce     a tenant has as many of a kind under way as may be
    +-- ChatFull          the chat takes no more turns
    +-- StoreFull         nothing more can be kept
    +-- StoreUnavailable  the database does not answer
    +-- StoreDamaged      what is kept can not be read, or not all of it
    +-- ShuttingDown      the server ended the turn because it is stopping

What is named and can not be used so, a picture or a turn, is a `values.InvalidField`. The engine's
own errors (`values.EngineError`) pass through unchanged.
"""

from dataclasses import dataclass


class ChatError(Exception):
    """The chats refused or ended something."""


@dataclass
class NotFound(ChatError):
    """There is no such thing, or it is another tenant's: the two look alike.

    `kind` is "chat", "turn", "image" or "original"; `id` is what the caller sent; `with_server`
    where it has gone with a server that kept chats in its memory alone.
    """

    kind: str
    id: str
    with_server: bool = False

    def __str__(self) -> str:
        if self.kind == "original":
            return "no file of such a picture is kept"
        return f"there is no such {self.kind}"


class TurnRunning(ChatError):
    """A turn is being answered in this chat."""

    def __str__(self) -> str:
        return "a turn is already running in this chat; wait for it or cancel it"


class RequestReused(ChatError):
    """The request_id belongs to a request with another body."""

    def __str__(self) -> str:
        return "this request_id was used before with another body; take a new one"


class TurnImported(ChatError):
    """The turn came by an import."""

    def __str__(self) -> str:
        return (
            "this turn was imported: what this server knows of its answer is its text alone, "
            "which leaves nothing to compare a replay with"
        )


@dataclass
class OtherTokenizer(ChatError):
    """The turn's token ids are another tokenizer's than the model's of today.

    `recorded` is that one's SHA-256, "" where it was not noted; `current` is today's.
    """

    recorded: str
    current: str

    def __str__(self) -> str:
        if self.recorded:
            fault = (
                f"this turn was answered with another tokenizer ({self.recorded[:12]}) than this "
                f"server's ({self.current[:12]}), to which its token ids say other words"
            )
        else:
            fault = (
                "this turn was answered by another model, before tokenizers were noted: to this "
                f"server's ({self.current[:12]}) its token ids may say other words"
            )
        return (
            f"{fault}: it can be gone on with from its text, but neither shown as the model saw it "
            "nor replayed"
        )


@dataclass
class PromptNeverSeen(ChatError):
    """An imported turn's prompt is longer than the model's context: no model here saw it."""

    num_tokens: int
    context_tokens: int

    def __str__(self) -> str:
        return (
            f"this turn was imported, and the whole prompt before its answer has {self.num_tokens} "
            f"tokens: the model's context holds {self.context_tokens}, so it never saw that prompt"
        )


@dataclass
class ReplayOverLimit(ChatError):
    """The record is longer than this server lets a turn be: `what` is, in tokens; `max_tokens` may
    be."""

    what: str
    num_tokens: int
    max_tokens: int

    def __str__(self) -> str:
        return (
            f"this turn can not be replayed here: {self.what} takes {self.num_tokens} tokens, and "
            f"this server's limit is {self.max_tokens}"
        )


@dataclass
class ReplayCut(ChatError):
    """A replay reached the time limit, and as far as it came nothing differed. Try again after
    `retry_after_seconds`."""

    retry_after_seconds: float

    def __str__(self) -> str:
        return (
            "the replay reached the time limit of turns before the end of the answer; as far as "
            "it came, the answer is as it was recorded"
        )


@dataclass
class ImportStalled(ChatError):
    """The body of an import did not come in time. Try again after `retry_after_seconds`."""

    retry_after_seconds: float

    def __str__(self) -> str:
        return "the chat and its pictures did not come in time; nothing of it was kept"


@dataclass
class TooManyAtOnce(ChatError):
    """As many of a kind are under way as may be. Try again after `retry_after_seconds`.

    `subject` is the kind, as in "imports"; `limit` says what may be, for the caller's eyes.
    """

    subject: str
    limit: str
    retry_after_seconds: float

    def __str__(self) -> str:
        return self.limit


@dataclass
class ChatFull(ChatError):
    """A chat may have `num_turns` turns, and this one has them. No time changes that."""

    num_turns: int

    def __str__(self) -> str:
        return f"this chat has {self.num_turns:,} turns, the most it may have; start a new one"


@dataclass
class StoreFull(ChatError):
    """Nothing more can be kept now. Try again after `retry_after_seconds`.

    `is_erasing`: what found no room was to make some.
    """

    retry_after_seconds: float
    is_erasing: bool = False

    def __str__(self) -> str:
        if self.is_erasing:
            return (
                "nothing was erased: erasing needs a little room on the server's disk, which is "
                "full; its operator has to make some first, 1 MB will do"
            )
        return "the server can keep no more chats now"


@dataclass
class StoreUnavailable(ChatError):
    """The database does not answer. Try again after `retry_after_seconds`.

    `may_be_done`: it was told to keep what was to be kept, and its answer did not come.
    """

    retry_after_seconds: float
    may_be_done: bool = False

    def __str__(self) -> str:
        return "the server can not reach its chats now"


@dataclass
class StoreDamaged(ChatError):
    """`what` is kept, but is not what was written. No time changes that."""

    what: str = "what is kept of this"

    def __str__(self) -> str:
        return f"{self.what} is damaged on the server; its operator can restore a backup"


@dataclass
class ShuttingDown(ChatError):
    """The server is stopping. Try again after `retry_after_seconds`."""

    retry_after_seconds: float

    def __str__(self) -> str:
        return "the server is stopping"
