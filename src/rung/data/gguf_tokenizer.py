"""`tokenizer.json` and `tokenizer_config.json` from the metadata of a GGUF file (keys `tokenizer.*`).

llama.cpp names the split of a byte-level BPE (`tokenizer.ggml.pre`) and knows its regex by that name. The table here
says the same in the words of the `tokenizers` library; source: `llm_tokenizer_bpe` and `load` in llama.cpp's
`src/llama-vocab.cpp`. A name that is not in the table is refused, because another split gives other tokens.

SentencePiece's BPE (Llama 2, Mistral 7B, TinyLlama) is kept there as tokens with scores, and the neighbours whose join
has the highest score are joined first. `tokenizers` wants a list of merges instead: every way to make a token of two,
in the order of the scores. Both give the same tokens, but where tokens have one score or a text offers two ways to the
same token at once. As in SentencePiece, only normal tokens are joined from others; llama.cpp would make a control token
out of a text that spells it, where its parts are tokens too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.data.byte_level import PRETOKENIZER_REGEX
from rung.errors import TokenizerError, did_you_mean

BYTE_LEVEL, WORD_PIECE, SENTENCE_PIECE = "gpt2", "bert", "llama"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
PHANTOM_SPACE = "\u2581"
"""A space in SentencePiece's tokens, and what begins the first piece of a word where llama.cpp keeps WordPiece."""
SPECIAL_KEYS = {
    "bos_token": "bos",
    "eos_token": "eos",
    "pad_token": "padding",
    "unk_token": "unknown",
    "sep_token": "seperator",  # spelled so in the format
    "cls_token": "cls",
    "mask_token": "mask",
}
_LLAMA3_REGEX = PRETOKENIZER_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_TEKKEN_REGEX = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


@dataclass(frozen=True)
class Split:
    """What cuts a text into pieces, in `tokenizers`' words; whether whole words skip merges; whether BOS is added."""

    steps: Sequence[dict[str, Any]]
    ignore_merges: bool = False
    add_bos: bool = False


_GPT2 = Split([_byte_level(use_regex=True)])
_GPT2_DIGITS = Split([{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)])
_QWEN2 = Split([_split(PRETOKENIZER_REGEX), _byte_level(use_regex=False)])
_LLAMA3 = Split([_split(_LLAMA3_REGEX), _byte_level(use_regex=False)], ignore_merges=True, add_bos=True)
_SAME_REGEX = Split(_LLAMA3.steps)
_TEKKEN = Split([_split(_TEKKEN_REGEX), _byte_level(use_regex=False)], ignore_merges=True, add_bos=True)
_DEFAULT = Split(
    [
        _split(r"[\p{P}\$\+<=>\^~\|]+"),
        _split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
        _split(r"\p{N}+"),
        _split(r"[0-9][0-9][0-9]"),
        _byte_level(use_regex=False),
    ]
)
SPLITS: dict[str, Split] = {
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "jais", "phi-2", "jina-v2-es", "jina-v2-de"), _GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _GPT2_DIGITS),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen"), _QWEN2),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), _SAME_REGEX),
    "tekken": _TEKKEN,
    "default": _DEFAULT,
}
"""By `tokenizer.ggml.pre`."""


def tokenizer_from_gguf(metadata: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The objects of `tokenizer.json` and `tokenizer_config.json`.

    Raises TokenizerError when the metadata has no tokenizer, one that is damaged, or a kind that Rung does not have.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in (BYTE_LEVEL, WORD_PIECE, SENTENCE_PIECE):
        raise TokenizerError(
            f"a tokenizer of kind {kind!r:.40} is not supported" if kind else "the GGUF file has no tokenizer",
            where=where,
            hint="read: byte-level BPE (kind gpt2), SentencePiece's BPE (kind llama) and WordPiece (kind bert)",
        )
    if kind == SENTENCE_PIECE:
        metadata = {**_SENTENCE_PIECE_DEFAULTS, **metadata}
    tokens, types = _tokens(metadata, where)
    special = _special_tokens(metadata, tokens, where)
    added = _added_tokens(tokens, types, set(special.values()))
    if kind == WORD_PIECE:
        definition, config = _word_piece(tokens, types, special, added, where)
    elif kind == SENTENCE_PIECE:
        merges = merges_by_score(tokens, types, _scores(metadata, tokens, where))
        definition, config = _sentence_piece(metadata, tokens, merges, special, added)
    else:
        definition, config = _byte_level_bpe(metadata, tokens, special, added, where)
    return definition, {**config, **special, **_chat_template(metadata, where)}


def _byte_level_bpe(
    metadata: Mapping[str, Any], tokens: list[str], special: Mapping[str, str], added: list[dict[str, Any]], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    name = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(name, str) or name not in SPLITS:
        raise TokenizerError(
            f"the tokenizer's split {name!r:.40} is not known{did_you_mean(str(name), SPLITS)}",
            where=where,
            hint=f"known: {', '.join(SPLITS)}",
        )
    split = SPLITS[name]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", split.add_bos) is True
    definition = {
        **_head(added),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(split.steps)},
        "post_processor": _begin_with(special.get("bos_token"), vocabulary) if add_bos else None,
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": split.ignore_merges,
            "vocab": vocabulary,
            "merges": _merges(metadata, vocabulary, where),
        },
    }
    # not a class of one family: transformers gives some of them a normaliser or a split of their own
    return definition, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": add_bos,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "rung": {"pretokenizer": name},
    }


def _word_piece(
    tokens: list[str], types: list[int], special: dict[str, str], added: list[dict[str, Any]], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    pieces = [
        token if kind != NORMAL else token[1:] if token.startswith(PHANTOM_SPACE) else f"##{token}"
        for token, kind in zip(tokens, types, strict=True)
    ]
    vocabulary = {token: number for number, token in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise TokenizerError("the tokenizer has a piece twice", where=where, hint=_DAMAGED)
    special.setdefault("cls_token", special.pop("bos_token", "[CLS]"))
    special.setdefault("sep_token", special.pop("eos_token", "[SEP]"))
    special.setdefault("unk_token", "[UNK]")
    first, last = special["cls_token"], special["sep_token"]
    missing = [token for token in (first, last, special["unk_token"]) if token not in vocabulary]
    if missing:
        raise TokenizerError(f"the tokenizer lacks {', '.join(missing)}", where=where, hint=_DAMAGED)
    definition = {
        **_head(added),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,  # llama.cpp's WordPiece always does
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": [last, vocabulary[last]],
            "cls": [first, vocabulary[first]],
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": special["unk_token"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    return definition, {"tokenizer_class": "BertTokenizer", "do_lower_case": True}


_SENTENCE_PIECE_DEFAULTS = {  # what llama.cpp takes for such a file that does not say
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_space_prefix": True,
}


def _sentence_piece(
    metadata: Mapping[str, Any],
    tokens: list[str],
    merges: list[list[str]],
    special: Mapping[str, str],
    added: list[dict[str, Any]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    add_bos = metadata["tokenizer.ggml.add_bos_token"] is True
    add_space = metadata["tokenizer.ggml.add_space_prefix"] is True
    spaces = [{"type": "Replace", "pattern": {"String": " "}, "content": PHANTOM_SPACE}]
    back = [
        {"type": "Replace", "pattern": {"String": PHANTOM_SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if add_space:
        spaces.insert(0, {"type": "Prepend", "prepend": PHANTOM_SPACE})
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    definition = {
        **_head(added),
        "normalizer": {"type": "Sequence", "normalizers": spaces},
        "pre_tokenizer": None,
        "post_processor": _begin_with(special["bos_token"], vocabulary) if add_bos else None,
        "decoder": {"type": "Sequence", "decoders": back},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": special["unk_token"],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    return definition, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": add_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }


def merges_by_score(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> list[list[str]]:
    """Every way to make a normal token of two others: the highest score first, then the longest left part."""
    scored = {token: score for token, kind, score in zip(tokens, types, scores, strict=True) if kind == NORMAL}
    ways = [
        (-score, -cut, cut - len(token), token[:cut], token[cut:])
        for token, score in scored.items()
        for cut in range(1, len(token))
        if token[:cut] in scored and token[cut:] in scored
    ]
    return [[left, right] for *_, left, right in sorted(ways)]


def _scores(metadata: Mapping[str, Any], tokens: list[str], where: str) -> list[float]:
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens) or not all(map(_is_number, scores)):
        raise TokenizerError("the tokenizer has not one score for each token", where=where, hint=_DAMAGED)
    return scores


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def _head(added: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None}


def _begin_with(token: str | None, vocabulary: Mapping[str, int]) -> dict[str, Any] | None:
    """A post-processor that puts `token` before a text, and before both of a pair."""
    if token is None:
        return None
    begin = {"SpecialToken": {"id": token, "type_id": 0}}
    single = [begin, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]}},
    }


_DAMAGED = "the file is damaged or was written by another convention: take another copy"


def _tokens(metadata: Mapping[str, Any], where: str) -> tuple[list[str], list[int]]:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise TokenizerError("the tokenizer has no list of tokens", where=where, hint=_DAMAGED)
    if len(set(tokens)) != len(tokens):
        raise TokenizerError("the tokenizer has a token twice", where=where, hint=_DAMAGED)
    types = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if not isinstance(types, list) or len(types) != len(tokens):
        raise TokenizerError("the tokenizer has not one type for each token", where=where, hint=_DAMAGED)
    return tokens, types


def _special_tokens(metadata: Mapping[str, Any], tokens: list[str], where: str) -> dict[str, str]:
    special = {}
    for name, key in SPECIAL_KEYS.items():
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if number is None:
            continue
        if not isinstance(number, int) or not 0 <= number < len(tokens):
            raise TokenizerError(
                f"the {name} is number {number!r:.40}, outside the vocabulary of {len(tokens):,}",
                where=where,
                hint=_DAMAGED,
            )
        special[name] = tokens[number]
    return special


def _added_tokens(tokens: list[str], types: list[int], special: set[str]) -> list[dict[str, Any]]:
    """Tokens that stand apart from the merges: control tokens, and what the makers of a model named themselves."""
    return [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in (UNKNOWN, CONTROL) or token in special,
        }
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED) or token in special
    ]


def _merges(metadata: Mapping[str, Any], vocabulary: Mapping[str, int], where: str) -> list[list[str]]:
    merges = metadata.get("tokenizer.ggml.merges", [])
    if not isinstance(merges, list):
        raise TokenizerError("the tokenizer has no list of merges", where=where, hint=_DAMAGED)
    pairs = [merge.split(" ") if isinstance(merge, str) else [] for merge in merges]
    for merge, pair in zip(merges, pairs, strict=True):
        if len(pair) != 2 or not vocabulary.keys() >= {*pair, "".join(pair)}:
            raise TokenizerError(f"the merge {merge!r:.60} is of tokens that are not there", where=where, hint=_DAMAGED)
    return pairs


def _chat_template(metadata: Mapping[str, Any], where: str) -> dict[str, str]:
    template = metadata.get("tokenizer.chat_template")
    if template is None:
        return {}
    if not isinstance(template, str):
        raise TokenizerError("the chat template is no text", where=where, hint=_DAMAGED)
    return {"chat_template": template}
