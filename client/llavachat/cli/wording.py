"""The library's and the server's sentences in the command line's words.

They speak of arguments and of messages; who types a command knows its options and variables. This
is the one place that translates.
"""

import re
from collections.abc import Sequence

from llavachat.errors import (
    AuthenticationFailed,
    CannotConnect,
    ConfigurationError,
    LlavaChatError,
    StatusError,
)

_NAMES = {
    "timeout_seconds": "--timeout",
    "tls_ca_file": "--ca-file",
    "tls_pin": "--pin",
    "tls_cert_file": "LLAVACHAT_TLS_CLIENT_CERT_FILE",
    "tls_key_file": "LLAVACHAT_TLS_CLIENT_KEY_FILE",
    "tls_server_name": "LLAVACHAT_TLS_SERVER_NAME",
    "max_tokens": "--max-tokens",
    "top_p": "--top-p",
    "top_k": "--top-k",
    "repetition_penalty": "--repetition-penalty",
    "system_prompt": "--system",
}
"""Words that nobody uses but for these arguments."""

_SUBJECTS = {
    "prompt": "The question",
    "temperature": "--temperature",
    "seed": "--seed",
    "stop": "--stop",
    "labels": "--label",
    "chat_id": "The chat's ID",
    "turn_id": "The turn's ID",
    "updated_since": "--since",
    "updated_before": "--before",
}
"""Words of English too, or parts of files' names: where a sentence begins with them."""

_PHRASES = {
    "use tls=True, or allow_insecure=True where": (
        "use --tls or --pin, or LLAVACHAT_ALLOW_INSECURE=1 where"
    ),
    "tls is off, but TLS files or a TLS name were given": (
        "--no-tls does not go with a CA file, a pin, a certificate or a TLS name"
    ),
    "(math.inf for no deadline)": "(inf for no deadline)",
    "overflow=OverflowPolicy.DROP_OLDEST_TURNS": "`--overflow drop`",
    "must be whole Unicode characters, without lone surrogates": (
        "is not UTF-8; set a UTF-8 locale, or convert it"
    ),
}

# Not where it is a part of a longer word or of a path, or stands in quotes as what was given.
_NAME = re.compile(rf"(?<![\w./'\"-])(?:params\.)?({'|'.join(_NAMES)})(?![\w/'\"-]|\.\w)")
_SUBJECT = re.compile(rf"^(?:params\.)?({'|'.join(_SUBJECTS)})(?=[:\[]| must | is )")

_PICTURE = re.compile(r"(?<![\w.])images\[(\d+)\](?:\.\w+)?")

_START = " Start one with `llavachat serve`, or name another with --address."
_TRUST = " See --tls, --ca-file and --pin."
_KEY = " Set LLAVACHAT_API_KEY to a key that it knows."


def put(error: LlavaChatError, pictures: Sequence[str] = ()) -> str:
    """What went wrong, and what to do about it, for who typed the command.

    Args:
        error: what was raised.
        pictures: what those of the question are called, in their order.
    """
    text = str(error)
    match error:
        case CannotConnect():
            return text + (_TRUST if re.search("TLS|certificate", text) else _START)
        case AuthenticationFailed():
            return text + _KEY
        case ConfigurationError() | StatusError():
            return _name_pictures(_translate(text), pictures)
    return text


def _name_pictures(text: str, names: Sequence[str]) -> str:
    def name(match: re.Match[str]) -> str:
        index = int(match[1])
        return names[index] if index < len(names) else match[0]

    return _PICTURE.sub(name, text)


def _translate(text: str) -> str:
    for theirs, ours in _PHRASES.items():
        text = text.replace(theirs, ours)
    text = _SUBJECT.sub(lambda match: _SUBJECTS[match[1]], text)
    return _NAME.sub(lambda match: _NAMES[match[1]], text)
