"""A recorded turn told once more, and a question that is to be answered once more. Pure.

Answered once more is what ended for a reason that passes: with its server, or while the engine or
the store could not be asked.
"""

from dataclasses import replace

from llavachat_server.chats.live import Ended, LiveTurn
from llavachat_server.chats.question import NewChat, Place, Question, SamplingWishes
from llavachat_server.chats.record import Turn, TurnState
from llavachat_server.chats.runner import tell_start
from llavachat_server.values import Delta, EngineFailed, EngineInfo, Timings, Usage

_NO_USAGE = Usage(0, 0, 0, 0, 0)
_NO_TIMINGS = Timings(0.0, 0.0, 0.0, 0.0, 0.0)


def tell_recorded(
    live: LiveTurn, chat_id: str, turn: Turn, trimmed_turn_ids: tuple[str, ...]
) -> None:
    """Tell an ended turn as it was told when it ran, the turns that its prompt lacked among it.

    A turn that ended with its server has no usage and no timings: zeros stand for them.
    """
    usage = turn.usage or _NO_USAGE
    num_tokens = usage.text_tokens + usage.image_tokens
    tell_start(live, chat_id, turn, trimmed_turn_ids, num_tokens)
    if turn.answer:
        live.publish(Delta(turn.answer, 0))
    if turn.finish_reason is None or turn.state is TurnState.FAILED:
        live.fail(EngineFailed())
        return
    timings = turn.timings or _NO_TIMINGS
    live.publish(Ended(turn.finish_reason, turn.matched_stop, usage, timings))


def ask_again(question: Question, chat_id: str, turn: Turn, info: EngineInfo) -> Question:
    """The question of a turn that ended with its server, at the same place in its chat.

    It keeps the parameters that were resolved then, the seed among them, so that the answer is
    the same one where the model is. What is over a limit of the server of today is cut to it: the
    caller may never have named the value, and is not to be refused for it.
    """
    sampling = turn.sampling
    return replace(
        question,
        where=Place(chat_id, turn.parent_id or ""),
        # A first question takes over the pictures that the chat was opened with.
        images=() if isinstance(question.where, NewChat) else question.images,
        wishes=SamplingWishes(
            max_tokens=min(sampling.max_tokens, info.max_tokens),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=min(sampling.top_k, info.vocab_size),
            repetition_penalty=sampling.repetition_penalty,
            seed=sampling.seed,
            stop=sampling.stop,
        ),
    )
