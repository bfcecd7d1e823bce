"""The one line that the log has for each turn: who, how much, how long and how it ended.

Never a word of what was said, nor the caller's own id of the request, which may name somebody and
outlives the chat here. What was refused before it became a turn has a line at the level
"debug", since whoever is refused may come again a thousand times. It must not know gRPC or chats.
"""

import logging

from llavachat_server.observation import CallReport, TurnReport
from llavachat_server.values import Timings, Usage, hash_request_id

log = logging.getLogger("llavachat.turns")

_DIGITS = 4


def log_turn(report: TurnReport, trace_id: str, span_id: str) -> None:
    """Write the line.

    Args:
        report: of the turn.
        trace_id, span_id: of the turn's span, in hexadecimal; "" where it is not traced.
    """
    reason = report.finish_reason
    fields: dict[str, object] = {
        "request_id_sha256": hash_request_id(report.request_id),
        "tenant": report.tenant,
        "chat_id": report.chat_id,
        "turn_id": report.turn_id,
        "trace_id": trace_id,
        "span_id": span_id,
        "model": report.model.profile,
        "finish_reason": "" if reason is None else reason.value,
        "error": report.error,
        "num_images": report.num_images,
        **_describe_usage(report.usage),
        **_describe_timings(report.timings),
        "commit_seconds": _round(_sum_phases(report, "commit_question", "commit_answer")),
        "total_seconds": _round(report.ended_seconds - report.began_seconds),
    }
    if report.num_images:
        fields["intake_seconds"] = _round(_sum_phases(report, "intake"))
    fields = {name: value for name, value in fields.items() if value != ""}
    if not report.turn_id:
        log.debug("turn refused", extra={"fields": fields})
    elif report.error:
        log.warning("turn", extra={"fields": fields})
    else:
        log.info("turn", extra={"fields": fields})


def log_call(report: CallReport) -> None:
    """Write a line for a call that was refused; the others have none."""
    if report.reason and log.isEnabledFor(logging.DEBUG):
        fields = {
            "method": report.method,
            "code": report.code,
            "reason": report.reason,
            "trace_id": "" if report.trace is None else report.trace.trace_id,
            "seconds": _round(report.seconds),
        }
        log.debug("call refused", extra={"fields": fields})


def _describe_usage(usage: Usage | None) -> dict[str, object]:
    if usage is None:
        return {}
    return {
        "prompt_tokens": usage.text_tokens + usage.image_tokens,
        "text_tokens": usage.text_tokens,
        "image_tokens": usage.image_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "context_left_tokens": usage.context_left_tokens,
    }


def _describe_timings(timings: Timings | None) -> dict[str, object]:
    if timings is None:
        return {}
    return {
        "queue_seconds": _round(timings.queue_seconds),
        "vision_seconds": _round(timings.vision_seconds),
        "prefill_seconds": _round(timings.prefill_seconds),
        "first_token_seconds": _round(timings.first_token_seconds),
        "decode_seconds": _round(timings.decode_seconds),
    }


def _sum_phases(report: TurnReport, *names: str) -> float:
    return sum(p.ended_seconds - p.began_seconds for p in report.phases if p.name in names)


def _round(seconds: float) -> float:
    return round(seconds, _DIGITS)
