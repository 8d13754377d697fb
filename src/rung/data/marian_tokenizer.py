"""Marian's tokenizer as its folders are published: a SentencePiece model for each side, one vocabulary for both.

`source.spm` cuts sources, `target.spm` targets, and `vocab.json` numbers the pieces of both; a piece without a number
is the unknown token. Ids and texts are those of transformers' `MarianTokenizer`, but for one thing: a text that spells
a special token gets the pieces of its characters.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from rung.data.sentencepiece_model import SPACE, SentencePieceModel
from rung.data.text_encoder import SPECIAL_TOKENS, TOKENIZER, TOKENIZER_CONFIG, EncodedTexts, clean
from rung.data.tokenizer_files import DAMAGED
from rung.errors import RunFolderError, RungWarning, TokenizerError
from rung.runfolder import read_json

SOURCE, TARGET, VOCABULARY = "source.spm", "target.spm", "vocab.json"
_USUAL = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
_LANGUAGE_CODE = re.compile(r">>.*?<<", re.DOTALL)
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class MarianTokenizer:
    """Cuts sources and targets, each by its own model, and turns ids back into text.

    Where a network writes several languages, a source begins with the code of one, for instance `>>fra<<`.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        source: SentencePieceModel,
        target: SentencePieceModel,
        *,
        special: Mapping[str, str] = _USUAL,
        where: str,
    ) -> None:
        """Take the number of each token. TokenizerError when a special token (`special`, by role) has none."""
        if missing := [token for token in special.values() if token not in vocabulary]:
            raise TokenizerError(f"{VOCABULARY} lacks {', '.join(missing)}", where=where, hint=DAMAGED)
        unknown, end, padding = (vocabulary[special[role]] for role in _USUAL)
        self.pad_token_id, self.eos_token_id, self._unknown = padding, end, unknown
        self.vocab_size = 1 + max(vocabulary.values())
        self._source, self._target = source, target
        pieces = {token: number for token, number in vocabulary.items() if token not in special.values()}
        self._numbers = pieces
        self._languages = sorted(token for token in pieces if _code_of(token) == token)
        silent, has_bytes = source.controls | target.controls, source.byte_fallback or target.byte_fallback
        self._spelled = {number: _spelled(token, has_bytes) for token, number in pieces.items() if token not in silent}

    @classmethod
    def load(cls, folder: Path) -> MarianTokenizer:
        """Read the folder. TokenizerError names what is missing, damaged or not supported."""
        try:
            vocabulary = read_json(folder / VOCABULARY)
            config, roles = (
                read_json(folder / name) if (folder / name).is_file() else {}
                for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS)
            )
        except RunFolderError as error:
            raise TokenizerError(error.problem, where=error.where, hint=DAMAGED) from error
        where, numbers = str(folder / VOCABULARY), list(vocabulary.values())
        if not all(type(number) is int and number >= 0 for number in numbers) or len(set(numbers)) < len(numbers):
            problem = f"{VOCABULARY} does not give every token a whole number of its own"
            raise TokenizerError(problem, where=where, hint=DAMAGED)
        special = {role: _content(config.get(role)) or _content(roles.get(role)) or _USUAL[role] for role in _USUAL}
        _refuse_others(config, set(special.values()), str(folder / TOKENIZER_CONFIG))
        source, target = (SentencePieceModel.read(folder / name) for name in (SOURCE, TARGET))
        return cls(vocabulary, source, target, special=special, where=where)

    @property
    def sentinels(self) -> tuple[int, ...]:
        """Tokens that stand for gaps in pretraining: Marian has none."""
        return ()

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Token ids of sources, each with its end token.

        A RungWarning names codes that are none of the languages which the network writes.
        """
        codes = {code for text in texts if (code := _code_of(text)) and code not in self._numbers}
        if codes and self._languages:
            some = ", ".join(f"{code:.20}" for code in sorted(codes)[:3])
            known = f"{', '.join(self._languages[:20])}{', ...' * (len(self._languages) > 20)}"
            warnings.warn(f"no language of the model: {some} (it writes {known})", RungWarning, stacklevel=2)
        return self._encoded(texts, self._source)

    def encode_targets(self, texts: Sequence[str]) -> EncodedTexts:
        """Token ids of targets, each with its end token."""
        return self._encoded(texts, self._target)

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token ids. Special tokens are left out, and so are numbers that no token has."""
        return [self._text(row) for row in rows]

    def _encoded(self, texts: Sequence[str], model: SentencePieceModel) -> EncodedTexts:
        rows = [self._ids(clean(text), model) for text in texts]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return EncodedTexts(np.fromiter(chain.from_iterable(rows), np.int32), lengths)

    def _ids(self, text: str, model: SentencePieceModel) -> list[int]:
        code = _code_of(text)
        pieces = [*[code] * bool(code), *model.pieces(text[len(code) :])]
        return [*(self._numbers.get(piece, self._unknown) for piece in pieces), self.eos_token_id]

    def _text(self, row: Sequence[int]) -> str:
        return b"".join(self._spelled.get(number, b"") for number in row).decode(errors="replace").strip()


def _code_of(text: str) -> str:
    """The language code that a text begins with, or nothing."""
    found = _LANGUAGE_CODE.match(text)
    return found[0] if found else ""


def holds_marian_tokenizer(folder: Path) -> bool:
    """Whether the tokenizer in `folder` is of this kind, whole or not.

    Where there is a `tokenizer.json` too, these files count if all are there, as in transformers.
    """
    source, target, vocabulary = ((folder / name).is_file() for name in (SOURCE, TARGET, VOCABULARY))
    if (folder / TOKENIZER).is_file():
        return source and target and vocabulary
    return source or target


def _refuse_others(config: Mapping[str, Any], special: set[str], where: str) -> None:
    """Raise TokenizerError for settings by which tokens would be others."""
    added: set[str | None] = set()
    for key in ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"):
        tokens = config.get(key) or ()
        listed = (
            tokens.values() if isinstance(tokens, dict) else tokens if isinstance(tokens, list | tuple) else [tokens]
        )
        added |= {_content(token) for token in listed}
    if others := sorted(str(token) for token in added - special):
        problem = f"added tokens are not supported here: {', '.join(others[:5])}"
        raise TokenizerError(problem, where=where, hint="take a Marian without them")
    if config.get("separate_vocabs"):
        raise TokenizerError(
            "separate_vocabs = true is not supported: each side has a vocabulary of its own",
            where=where,
            hint="take a Marian with one vocabulary for both sides, as the opus-mt models have it",
        )
    if kwargs := config.get("sp_model_kwargs"):
        problem = f"sp_model_kwargs = {kwargs!r:.80} is not supported: texts are cut in the best way, and not at random"
        raise TokenizerError(problem, where=where, hint="take it out of the file")


def _content(token: Any) -> str | None:
    """A special token's spelling, if it is one: transformers also writes them as objects."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _spelled(token: str, has_bytes: bool) -> bytes:
    """The text that a token stands for, in UTF-8."""
    byte = _BYTE.fullmatch(token) if has_bytes else None
    return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode(errors="replace")
