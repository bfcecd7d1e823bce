"""What of a request protobuf could not carry; all else is the server's to judge."""

import re
from collections.abc import Mapping
from typing import TypeVar

from llavachat.errors import NOT_SENT, FieldViolation, InvalidRequest, StatusDetails

Text = TypeVar("Text", str, str | None)


def check_prompt(prompt: str) -> str:
    """Let a question through."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise refuse("prompt", "must be a question, not blank")
    return check_text("prompt", prompt)


def check_id(name: str, value: str) -> str:
    """Let an id through that is not empty."""
    if not value:
        raise refuse(name, "must not be empty")
    return check_text(name, value)


def check_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Let labels through."""
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        expected = "must be a mapping of texts to texts, such as {'job': '7'}"
        raise refuse("labels", expected, labels)
    pairs = labels.items()
    return {check_each("labels", key): check_each("labels", value) for key, value in pairs}


def check_each(name: str, value: str) -> str:
    """Let one of several texts through, of which none may be missing."""
    if value is None:
        raise refuse(name, "must be text, not None")
    return check_text(name, value)


def check_text(name: str, text: Text) -> Text:
    """Let a text through that UTF-8 has, or none. What was no UTF-8 on a command line comes with
    surrogates in its place."""
    if text is None:
        return text
    if not isinstance(text, str):
        raise refuse(name, "must be text", text)
    if re.search("[\ud800-\udfff]", text):
        raise refuse(name, "must be whole Unicode characters, without lone surrogates")
    return text


def is_int(value: object) -> bool:
    """True for a whole number; True itself is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """True for a number; True itself is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def refuse(field: str, expected: str, value: object = None) -> InvalidRequest:
    """The error for a field that can not be sent, as if the server had refused it."""
    shown = "" if value is None else f", not {value!r}"
    message = f"{field} {expected}{shown}."
    violation = FieldViolation(field, f"{expected}{shown}", NOT_SENT)
    return InvalidRequest(message, StatusDetails(message=message, violations=(violation,)))
