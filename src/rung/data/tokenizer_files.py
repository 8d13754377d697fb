"""The files of a tokenizer's folder, as Rung and others write them: the definition, which tokens begin and end a text.

Folders differ in where they say so. GPT-2's own has neither an end-of-text token in `tokenizer_config.json` nor, in
older copies, a `tokenizer.json`; some have `special_tokens_map.json`, and all have the token's number in `config.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.errors import TokenizerError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_SPECIAL_TOKENS_FILE = "special_tokens_map.json"
_MODEL_CONFIG_FILE = "config.json"
_VOCABULARY_FILE, _MERGES_FILE = "vocab.json", "merges.txt"
_OTHER_TOKENIZERS = ("*.spm", "spiece.model", "sentencepiece*.model", "vocab.txt", "vocab.json", "merges.txt")
DAMAGED = "the file is damaged or incomplete: use another copy of the folder, or train again"


@dataclass(frozen=True)
class TokenizerFolder:
    """What a folder says. `adds_bos`: whether a text begins with `bos_token`; None: `tokenizer.json` decides.

    `config` is the object of `tokenizer_config.json`.
    """

    definition: str
    eos_token: str
    bos_token: str | None = None
    adds_bos: bool | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def read_tokenizer_folder(folder: Path) -> TokenizerFolder:
    """Read a folder. TokenizerError when files are missing or damaged, or none names the end-of-text token."""
    path = folder / TOKENIZER_FILE
    by_vocabulary = not path.is_file() and (folder / _VOCABULARY_FILE).is_file()
    definition = _from_vocabulary(folder) if by_vocabulary else _read(path)
    config = _read_object(folder / CONFIG_FILE)
    eos_token, bos_token = (_named(folder, config, definition, f"{kind}_token") for kind in ("eos", "bos"))
    if eos_token is None:
        raise TokenizerError(f"{CONFIG_FILE} names no eos_token", where=str(folder), hint=DAMAGED)
    adds_bos = config.get("add_bos_token")
    return TokenizerFolder(definition, eos_token, bos_token, adds_bos if isinstance(adds_bos, bool) else None, config)


def without_definition(folder: Path) -> TokenizerError:
    """The refusal of a folder without `tokenizer.json`, with the way out where it has another kind of tokenizer."""
    others = sorted(path.name for pattern in _OTHER_TOKENIZERS for path in folder.glob(pattern))
    if others:
        return TokenizerError(
            f"the folder has no {TOKENIZER_FILE}, only {', '.join(others)}",
            where=str(folder),
            hint="transformers writes one: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    return TokenizerError(
        f"the folder has no {TOKENIZER_FILE}", where=str(folder), hint="copy it from the model's origin"
    )


def _named(folder: Path, config: Mapping[str, Any], definition: str, kind: str) -> str | None:
    """The spelling of a special token, from the first file that knows it."""
    sources = [config]
    if (folder / _SPECIAL_TOKENS_FILE).is_file():
        sources.append(_read_object(folder / _SPECIAL_TOKENS_FILE))
    for source in sources:
        token = source.get(kind)
        if isinstance(token, dict):  # transformers also writes special tokens as objects
            token = token.get("content")
        if isinstance(token, str):
            return token
    model = _read_object(folder / _MODEL_CONFIG_FILE) if (folder / _MODEL_CONFIG_FILE).is_file() else {}
    number = model.get(f"{kind}_id")
    number = number[0] if isinstance(number, list) and number else number
    return _spelled(definition, number) if isinstance(number, int) else None


def _spelled(definition: str, number: int) -> str | None:
    """The special token with this number."""
    try:
        added = json.loads(definition).get("added_tokens") or []
    except (ValueError, AttributeError):
        return None  # `Tokenizer` tells what is wrong with it
    return next((token["content"] for token in added if token.get("id") == number and token.get("special")), None)


def _from_vocabulary(folder: Path) -> str:
    """The definition of GPT-2's two files: tokens with their numbers, and merges, one a line after a first comment."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = _read_object(folder / _VOCABULARY_FILE)
    lines = _read(folder / _MERGES_FILE).splitlines()
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#version"))
    merges = [(left, right) for left, _, right in pairs]
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # the Rust library raises plain `Exception` for merges that do not fit
        problem = f"{_VOCABULARY_FILE} and {_MERGES_FILE} do not fit each other: {error}"
        raise TokenizerError(problem, where=str(folder), hint=DAMAGED) from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in vocabulary if token.startswith("<|") and token.endswith("|>")]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    definition: str = tokenizer.to_str()
    return definition


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TokenizerError(
            f"there is no {path.name}", where=str(path.parent), hint="give a folder that holds a tokenizer"
        ) from error
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path.name} is not UTF-8: {error}", where=str(path), hint=DAMAGED) from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path))
    except ValueError as error:
        raise TokenizerError(f"{path.name} is not JSON: {error}", where=str(path), hint=DAMAGED) from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path.name} is not a JSON object", where=str(path), hint=DAMAGED)
    return value
