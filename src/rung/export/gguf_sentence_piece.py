"""SentencePiece's BPE (Llama 2, Mistral 7B, TinyLlama) as GGUF keeps it: the inverse of `rung.data.gguf_tokenizer`.

llama.cpp joins the neighbours whose join is the token with the highest score, whatever the two are. A list of merges
says the same only if it has every way to make a token of two, and all ways to one token beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rung.data.gguf_tokenizer import BYTE, NORMAL, PHANTOM_SPACE, SENTENCE_PIECE, UNKNOWN, merges_by_score
from rung.errors import TokenizerError

_BYTES = {f"<0x{byte:02X}>": BYTE for byte in range(256)}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": PHANTOM_SPACE}
_PREPEND = {"type": "Prepend", "prepend": PHANTOM_SPACE}
_KEEPS_IT = "--to hf keeps it as it is"


def is_sentence_piece(definition: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` spells unknown characters in bytes, as SentencePiece's BPE does and no other."""
    model = definition["model"]
    return model["type"] == "BPE" and model.get("byte_fallback") is True


def sentence_piece_values(
    definition: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], where: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values of its own keys, and notes; `types` are those of `tokens` that every kind of tokenizer has.

    Raises TokenizerError where scores cannot say what the tokenizer does.
    """
    missing = _BYTES.keys() - set(tokens)
    if missing:
        raise TokenizerError(f"the tokenizer lacks the token {min(missing)} of a byte", where=where, hint=_KEEPS_IT)
    own = {**_BYTES, definition["model"].get("unk_token"): UNKNOWN}
    types = [own.get(token, kind) for token, kind in zip(tokens, types, strict=True)]
    add_space, notes = _space_before(definition, where)
    return {
        "tokenizer.ggml.model": SENTENCE_PIECE,
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": _scores(definition, tokens, types, where),
        "tokenizer.ggml.add_bos_token": _begins_with_special(definition),
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": add_space,
    }, notes


def _scores(definition: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], where: str) -> list[float]:
    """Minus the place of a token among those that are joined; what is never joined stands behind all."""
    merges = [
        tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in definition["model"]["merges"]
    ]
    joined = ["".join(merge) for merge in merges]
    place = {token: -float(number) for number, token in enumerate(dict.fromkeys(joined))}
    scores = [
        place.get(token, -float(len(place))) if kind == NORMAL else 0.0
        for token, kind in zip(tokens, types, strict=True)
    ]
    ways = [tuple(way) for way in merges_by_score(tokens, types, scores)]
    if sorted(ways) != sorted(merges) or ["".join(way) for way in ways] != joined:
        raise TokenizerError(
            "llama.cpp cannot make these tokens: the merges are not every way to join two, by the score of the join",
            where=where,
            hint=_KEEPS_IT,
        )
    return scores


def _space_before(definition: Mapping[str, Any], where: str) -> tuple[bool, tuple[str, ...]]:
    """Whether a space is put before a text, and where llama.cpp does it otherwise."""
    given = definition.get("normalizer") or {"type": "Sequence", "normalizers": []}
    steps = given.get("normalizers", [given])
    split = definition.get("pre_tokenizer")
    if split is None and steps in ([_REPLACE], [_PREPEND, _REPLACE]):
        return _PREPEND in steps, ()
    if not steps and split is not None and split["type"] == "Metaspace" and split.get("split") is False:
        if split["replacement"] == PHANTOM_SPACE and split["prepend_scheme"] == "never":
            return False, ()
        if split["replacement"] == PHANTOM_SPACE:
            return True, ("llama.cpp puts a space before a text that begins with one, too, and behind special tokens",)
    raise TokenizerError("llama.cpp has no such way to turn spaces into tokens", where=where, hint=_KEEPS_IT)


def _begins_with_special(definition: Mapping[str, Any]) -> bool:
    """Whether a text gets a special token in front."""
    processor = definition.get("post_processor") or {}
    steps = processor.get("processors", [processor])
    return any("SpecialToken" in step["single"][0] for step in steps if step.get("single"))
