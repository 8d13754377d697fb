"""Which bytes a token stands for by its spelling in `tokenizer.json`, in the two styles that can spell every text.

- byte-level, as GPT-2, Llama 3, Qwen and SmolLM: each byte has a visible character that stands for it;
- pieces with byte fallback, as SentencePiece trains them for Llama 2, Mistral and TinyLlama: a token is its own text
  with U+2581 for a space, and `<0x0A>` is a byte that no piece covers. Such tokenizers put a space before a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rung.data.byte_level import byte_of_character

_SPACE = "\u2581"
_FALLBACK = re.compile("<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Spelling:
    """One style. `byte_tokens[b]` spells the byte b; `adds_space`: whether a text is encoded with a space before it."""

    byte_tokens: tuple[str, ...]
    adds_space: bool = False

    def bytes_of(self, token: str) -> bytes | None:
        """The bytes that a token of the vocabulary stands for, or None when it cannot be one of this style."""
        raise NotImplementedError


class ByteLevelSpelling(Spelling):
    """Each character stands for a byte."""

    def bytes_of(self, token: str) -> bytes | None:
        """See `Spelling`."""
        table = byte_of_character()
        return bytes(map(table.__getitem__, token)) if table.keys() >= set(token) else None


class PieceSpelling(Spelling):
    """Text, or one byte."""

    def bytes_of(self, token: str) -> bytes | None:
        """See `Spelling`."""
        if found := _FALLBACK.fullmatch(token):
            return bytes([int(found[1], 16)])
        return token.replace(_SPACE, " ").encode()


def spelling_of(definition: Any) -> Spelling | None:
    """The style of a parsed `tokenizer.json`, or None when it is of another sort."""
    if not isinstance(definition, dict):
        return None
    model = definition.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return None
    if "ByteLevel" in json.dumps(definition.get("decoder")):
        return ByteLevelSpelling(tuple(sorted(byte_of_character(), key=byte_of_character().__getitem__)))
    steps = [*_steps(definition.get("normalizer")), *_steps(definition.get("pre_tokenizer"))]
    if model.get("byte_fallback") and any(step.get("type") in ("Metaspace", "Replace") for step in steps):
        return PieceSpelling(tuple(f"<0x{byte:02X}>" for byte in range(256)), any(map(_adds_space, steps)))
    return None


def _steps(part: Any) -> list[Mapping[str, Any]]:
    """The steps of a normaliser or split, one or a sequence of them."""
    if not isinstance(part, dict):
        return []
    inner = part.get("normalizers") or part.get("pretokenizers")
    return [step for each in inner for step in _steps(each)] if isinstance(inner, list) else [part]


def _adds_space(step: Mapping[str, Any]) -> bool:
    if step.get("type") == "Metaspace":
        return bool(step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space", True))
    return step.get("type") == "Prepend" and step.get("prepend") == _SPACE


def characters_begun_by(byte: int) -> str:
    """The characters whose UTF-8 begins with `byte`, as a range of a regex's character class; empty for none."""
    if byte < 0x80:
        return re.escape(chr(byte))
    for lead, end, bits, lowest in ((0xC2, 0xE0, 6, 0x80), (0xE0, 0xF0, 12, 0x800), (0xF0, 0xF5, 18, 0x10000)):
        if lead <= byte < end:
            first = (byte & (0x1F >> (bits // 6 - 1))) << bits
            last = min(first + (1 << bits) - 1, 0x10FFFF)
            return f"\\U{max(first, lowest):08x}-\\U{last:08x}"
    return ""  # no character begins with it
