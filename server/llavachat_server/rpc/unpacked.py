"""What a message takes in memory beyond its own bytes, known before protobuf unpacks it.

An empty message in a list is two bytes on the wire and two hundred in memory: 51 MB of them, which
pack to 50 KB, took 5 GB and held the event loop for 20 s. So a large message is walked first, by
the contract's own description, and goes no further than the limit.

Contract: whatever protobuf would make memory for is counted, what it does not know included. Pure.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

_READ_BYTES = 32
"""Of any field that is there. A number is stored in place and takes none: this is for the time, of
which a field takes a millionth of a second here."""
_MESSAGE_BYTES = 24
_SLOT_BYTES = 12
"""Of each field that a message may have: 4 for a number, 8 for a message or a list, 16 for text.
By both a Turn takes 204 bytes; 25,500,000 of them took 180 to 210 each with protobuf 7.36."""
_ENTRY_BYTES = 32
"""Of an entry of a list, which may double as it grows, and of a field that is not known."""

_BATCH_FIELDS = 1000
"""So many are walked in 1 ms; others have their turn then."""

_MAX_VARINT_BYTES = 10
_MAX_NUMBER = 2**29 - 1
"""Source: protobuf's encoding, https://protobuf.dev/programming-guides/encoding/."""

Fields: TypeAlias = Mapping[int, tuple[int, Descriptor | None]]
"""What each field of a message costs and holds, by its tag on the wire."""

_UNKNOWN: tuple[int, Descriptor | None] = (_READ_BYTES + _ENTRY_BYTES, None)

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_STRING: _DELIMITED,
    FieldDescriptor.TYPE_BYTES: _DELIMITED,
    FieldDescriptor.TYPE_MESSAGE: _DELIMITED,
}


class Overfull(Exception):
    """The message would take more than it may."""


def walk(data: bytes, kind: Descriptor, max_bytes: int) -> Iterator[None]:
    """Add up what a message would take; stops now and then, so that others have their turn.

    Args:
        data: the message.
        kind: what it is to be.
        max_bytes: the most that it may take beyond its own length.

    Raises:
        Overfull: it would take more.
        DecodeError: it is no message.
    """
    at, end, fields = 0, len(data), _describe(kind)
    outer: list[tuple[int, Fields]] = []
    num_walked = 0
    while at < end or outer:
        if at == end:
            end, fields = outer.pop()
            continue
        tag, at = _read_varint(data, at)
        cost, inner = fields.get(tag, _UNKNOWN)
        max_bytes -= cost
        if max_bytes < 0:
            raise Overfull
        wire_type = tag & 7
        if wire_type == _DELIMITED:
            size, at = _read_varint(data, at)
            if inner is not None and at + size <= end:
                outer.append((end, fields))
                end, fields = at + size, _describe(inner)
                size = 0
        elif wire_type == _VARINT:
            size, (_, at) = 0, _read_varint(data, at)
        else:
            # A group, which the contract has none of, is no message of it.
            size = _FIXED_SIZES.get(wire_type, len(data))
        at += size
        if at > end or not 0 < tag >> 3 <= _MAX_NUMBER:
            raise DecodeError
        num_walked += 1
        if num_walked % _BATCH_FIELDS == 0:
            yield


@cache
def _describe(kind: Descriptor) -> Fields:
    fields = {}
    for field in kind.fields:
        cost, inner = _READ_BYTES, field.message_type
        if inner is not None:
            cost += _MESSAGE_BYTES + _SLOT_BYTES * len(inner.fields)
        if field.is_repeated:
            cost += _ENTRY_BYTES
        wire_type = _WIRE_TYPES.get(field.type, _VARINT)
        fields[field.number << 3 | wire_type] = (cost, inner)
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next byte is."""
    # Nearly all have one byte.
    if at < len(data) and (value := data[at]) < 128:
        return value, at + 1
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        if byte < 128:
            return value | byte << (7 * index), at
        value |= (byte & 127) << (7 * index)
    raise DecodeError
