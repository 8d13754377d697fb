"""Special tokens of a byte-level BPE: which there are, text in which they count, and new ones.

`Tokenizer.encode` never makes a special token from text. A chat template's text is the exception: there they are meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from rung.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a tokenizer. `ids`: by their spelling.

    `pattern` parts text at them, longest first; `first_characters` matches the first character of each spelling.
    """

    ids: Mapping[str, int]
    pattern: re.Pattern[str]
    first_characters: re.Pattern[str]


def special_tokens_of(tokenizer: Tokenizer) -> SpecialTokens:
    """The special tokens of `tokenizer`."""
    if tokenizer not in _FOUND:
        _FOUND[tokenizer] = _read(tokenizer.definition)
    return _FOUND[tokenizer]


_FOUND: WeakKeyDictionary[Tokenizer, SpecialTokens] = WeakKeyDictionary()


def encode_with_special(text: str, tokenizer: Tokenizer) -> list[int]:
    """Token ids of `text`, in which the spelling of a special token is that token, as in transformers."""
    if tokenizer.adds_space:
        return tokenizer.encode_marked(text)
    specials = special_tokens_of(tokenizer)
    ids: list[int] = []
    for number, piece in enumerate(specials.pattern.split(text)):
        if number % 2:
            ids.append(specials.ids[piece])
        elif piece:
            ids += tokenizer.encode(piece)
    return ids


def with_special_tokens(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """`tokenizer` with `tokens` as special ones; those that are new get the next ids, in this order."""
    specials, next_id = special_tokens_of(tokenizer).ids, tokenizer.vocab_size
    definition = json.loads(tokenizer.definition)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added: list[dict[str, Any]] = definition.setdefault("added_tokens", [])
    for token in tokens:
        if token not in specials:
            added.append({"id": next_id, "content": token, **flags})
            next_id += 1
    return tokenizer.redefined(
        json.dumps(definition, ensure_ascii=False), where="the tokenizer with new special tokens"
    )


def _read(definition: str) -> SpecialTokens:
    added = [token for token in json.loads(definition).get("added_tokens", []) if token.get("special")]
    added.sort(key=lambda token: -len(token["content"]))
    # A token may swallow the white space around it.
    spelled = [
        (r"\s*" if token.get("lstrip") else "", re.escape(token["content"]), r"\s*" if token.get("rstrip") else "")
        for token in added
    ]
    if not spelled:
        return SpecialTokens({}, re.compile("((?!))"), re.compile("((?!))"))
    before = "|".join(f"{left}(?={token})" for left, token, _ in spelled if left)
    after = "|".join(f"(?<={token}){right}" for _, token, right in spelled if right)
    middle = "|".join(token for _, token, _ in spelled)
    pattern = f"(?:{before})?({middle})(?:{after})?" if before or after else f"({middle})"
    first = re.compile(f"(?=(?:{middle}))(.)", re.DOTALL)
    return SpecialTokens({token["content"]: int(token["id"]) for token in added}, re.compile(pattern), first)
