"""Writes SentencePiece models: a message of protocol buffers, as `sentencepiece_model.proto` has it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
Piece = tuple[str, float, int]
SPECIAL: list[Piece] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]


def write_model(
    pieces: Sequence[Piece], trainer: Mapping[int, Any] | None = None, normalizer: Mapping[int, Any] | None = None
) -> bytes:
    """The bytes of a `.spm`; `trainer` and `normalizer` are the fields of its specs by number."""
    parts = [field(1, field(1, piece) + field(2, score) + field(3, kind)) for piece, score, kind in pieces]
    specs = (b"".join(field(*entry) for entry in (spec or {}).items()) for spec in (trainer, normalizer))
    return b"".join([*parts, *(field(number, spec) for number, spec in zip((2, 3), specs, strict=True))])


def field(number: int, value: str | bytes | bool | float) -> bytes:
    """One field of a message."""
    if isinstance(value, float):
        return _whole_number(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _whole_number(number << 3) + _whole_number(value)
    content = value.encode() if isinstance(value, str) else value
    return _whole_number(number << 3 | 2) + _whole_number(len(content)) + content


def _whole_number(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])
