"""A Hugging Face tokenizer as the metadata of a GGUF file: the inverse of `rung.data.gguf_tokenizer`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rung.data.gguf_tokenizer import (
    BYTE_LEVEL,
    CONTROL,
    NORMAL,
    PHANTOM_SPACE,
    SPECIAL_KEYS,
    SPLITS,
    UNUSED,
    USER_DEFINED,
    WORD_PIECE,
)
from rung.errors import TokenizerError
from rung.export.gguf_sentence_piece import is_sentence_piece, sentence_piece_values
from rung.export.source import Source

_PREFIX = "##"


def gguf_vocabulary(source: Source, rows: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values of the keys `tokenizer.*`, and notes on what llama.cpp does otherwise.

    `rows` is the height of the embedding: where the tokenizer has fewer tokens, unused ones fill the rest.
    Raises TokenizerError when llama.cpp has no such tokenizer.
    """
    definition = _read(source, "tokenizer.json")
    config = _read(source, "tokenizer_config.json")
    model = definition.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind not in ("BPE", "WordPiece"):
        raise TokenizerError(
            f"a tokenizer of type {kind} is not written as GGUF",
            where=str(source.folder),
            hint="BPE and WordPiece are: --to hf keeps others as they are",
        )
    vocabulary: dict[str, int] = dict(definition["model"].get("vocab", {}))
    added = {token["content"]: token for token in definition.get("added_tokens", [])}
    vocabulary |= {content: token["id"] for content, token in added.items()}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))) or len(tokens) > rows:
        raise TokenizerError(
            f"the tokenizer has {len(tokens):,} tokens with gaps, or more than the {rows:,} rows of the embedding",
            where=str(source.folder),
        )
    types = [_type(added.get(token)) for token in tokens] + [UNUSED] * (rows - len(tokens))
    tokens += [f"[PAD{number}]" for number in range(len(tokens), rows)]
    if is_sentence_piece(definition):
        values, notes = sentence_piece_values(definition, tokens, types, str(source.folder))
    elif kind == "BPE":
        values, notes = _byte_level_bpe(definition, config, str(source.folder))
    else:
        values, notes = _word_piece(definition)
        values["tokenizer.ggml.token_type_count"] = source.config["type_vocab_size"]
        tokens = [
            _with_phantom_space(token) if type_ == NORMAL else token for token, type_ in zip(tokens, types, strict=True)
        ]
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        **values,
        **_special_ids(config, vocabulary),
        **_chat_template(source, config),
    }, notes


def _byte_level_bpe(
    definition: Mapping[str, Any], config: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    normalizer = (definition.get("normalizer") or {}).get("type")
    if normalizer == "NFC":
        notes = ("the tokenizer composes characters (NFC) before it splits text, which llama.cpp does not",)
    elif normalizer is not None:
        raise TokenizerError(f"llama.cpp has no byte-level BPE behind the normaliser {normalizer}", where=where)
    merges = definition["model"].get("merges", [])
    values = {
        "tokenizer.ggml.model": BYTE_LEVEL,
        "tokenizer.ggml.pre": _split_name(definition, config, where),
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        "tokenizer.ggml.add_bos_token": bool(config.get("add_bos_token", False)),
        "tokenizer.ggml.add_space_prefix": False,
    }
    return values, notes


def _split_name(definition: Mapping[str, Any], config: Mapping[str, Any], where: str) -> str:
    """What llama.cpp calls the tokenizer's split. TokenizerError when it has none like it."""
    steps = _plain_steps(definition.get("pre_tokenizer"))
    ignore_merges = bool(definition["model"].get("ignore_merges", False))
    fitting = [
        name
        for name, split in SPLITS.items()
        if split.ignore_merges == ignore_merges
        and steps == _plain_steps({"type": "Sequence", "pretokenizers": list(split.steps)})
    ]
    noted = config.get("rung")
    own = noted.get("pretokenizer") if isinstance(noted, dict) else None
    if not fitting:
        whole_words = " that takes whole words past the merges" if ignore_merges else ""
        raise TokenizerError(
            f"llama.cpp has no byte-level BPE with this split{whole_words}",
            where=where,
            hint="--to hf keeps it; GGUF takes the tokenizers that Rung trains as bpe, byte or character",
        )
    return own if own in fitting else fitting[0]


def _plain_steps(pre_tokenizer: Any) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer with their defaults written out, and without what changes no token."""
    given = pre_tokenizer or {}
    steps = given.get("pretokenizers", [given])
    defaults = {"Split": {"invert": False}, "ByteLevel": {"use_regex": True}}
    return [
        {**defaults.get(step.get("type"), {}), **{k: v for k, v in step.items() if k != "trim_offsets"}}
        for step in steps
    ]


def _word_piece(definition: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    normalizers = definition.get("normalizer") or {}
    bert: dict[str, Any] = next(
        (n for n in normalizers.get("normalizers", [normalizers]) if n.get("type") == "BertNormalizer"), {}
    )
    notes = []
    if not bert.get("lowercase"):
        notes.append("the tokenizer keeps capital letters, and llama.cpp's WordPiece makes small ones of them")
    if bert.get("strip_accents") is False:
        notes.append("the tokenizer keeps accents, and llama.cpp's WordPiece takes them off")
    return {"tokenizer.ggml.model": WORD_PIECE, "tokenizer.ggml.pre": "default"}, tuple(notes)


def _with_phantom_space(token: str) -> str:
    return token.removeprefix(_PREFIX) if token.startswith(_PREFIX) else PHANTOM_SPACE + token


def _type(added: Mapping[str, Any] | None) -> int:
    if added is None:
        return NORMAL
    return CONTROL if added.get("special") else USER_DEFINED


def _special_ids(config: Mapping[str, Any], vocabulary: Mapping[str, int]) -> dict[str, int]:
    roles = dict(config)
    # llama.cpp begins and ends a text for an encoder with these two
    roles["bos_token"] = roles.get("bos_token") or roles.get("cls_token")
    roles["eos_token"] = roles.get("eos_token") or roles.get("sep_token")
    ids = {}
    for role, key in SPECIAL_KEYS.items():
        token = roles.get(role)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and content in vocabulary:
            ids[f"tokenizer.ggml.{key}_token_id"] = vocabulary[content]
    return ids


def _chat_template(source: Source, config: Mapping[str, Any]) -> dict[str, str]:
    file = source.folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    return {"tokenizer.chat_template": template} if isinstance(template, str) else {}


def _read(source: Source, name: str) -> dict[str, Any]:
    path = source.folder / name
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{name} cannot be read ({error})", where=str(source.folder)) from error
    return value
