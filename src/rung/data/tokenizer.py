"""Text to token ids and back: one byte-level BPE, four ways of choosing its vocabulary.

All kinds are the same machine, so that all are read by `transformers.AutoTokenizer`, vLLM and llama.cpp without
custom code. Text is split by Qwen2's regex, every piece becomes UTF-8 bytes, every byte is a token, and then a list of
merges joins neighbouring tokens:

- `bpe`: the merges are learned from the text (Sennrich et al. 2016, on bytes as in GPT-2);
- `byte`: no merges;
- `character`: exactly the merges that build each character of the training text from its bytes. A UTF-8 character
  starts with a lead byte and no merge starts with a continuation byte, so no merge can cross a character border, and a
  character that was never seen stays a few byte tokens;
- `word`: the most frequent words, each with the space before it, are tokens as a whole (the model's `ignore_merges`),
  and every other word and stretch of white space is spelled in its characters.

There is no normaliser and no unknown token, so `decode(encode(text)) == text` for every text. Tokenizers of other makes
are read too (`rung.data.spelling`): some normalise (Qwen2's: to NFC), which `decode` does not undo. Other people's
vocabularies may lack a byte (SmolLM2's has none for U+0004): a character that needs it is refused rather than lost.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rung.data.byte_level import (
    END_OF_TEXT,
    PRETOKENIZER_NAME,
    SMALLEST_VOCABULARY,
    character_merges,
    learned_merges,
    no_merges,
    splits_like_ours,
    whole_words,
)
from rung.data.library_encoding import encode_in_library, library_without_split, unencodable
from rung.data.spelling import Spelling, characters_begun_by, spelling_of
from rung.data.tokenizer_files import CONFIG_FILE, DAMAGED, TOKENIZER_FILE, read_tokenizer_folder
from rung.data.words import Ragged, WordTable, is_plain
from rung.errors import TokenizerError
from rung.progress import SILENT, Progress
from rung.runfolder import write_json, write_text

if TYPE_CHECKING:
    import tokenizers

TokenizerKind = Literal["bpe", "byte", "character", "word"]

_INVALID_BYTES = re.compile("([\udc80-\udcff]+)")  # what `surrogateescape` makes of bytes that are not UTF-8


class Tokenizer:
    """A BPE that can spell every text, read from, and written as, Hugging Face's `tokenizer.json`.

    Special tokens are never made from text: a document that spells `<|endoftext|>` gets the tokens of its characters.
    `bos_token_id` is the token that the model expects before a text, None where it expects none.
    """

    def __init__(
        self,
        definition: str,
        *,
        eos_token: str,
        pretokenizer_name: str | None,
        where: str,
        bos_token: str | None = None,
        adds_bos: bool | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the text of a `tokenizer.json`; `where` names its origin in errors.

        `bos_token`, `adds_bos`: see `TokenizerFolder`. `config`: the `tokenizer_config.json` of another make, which
        `save` hands on. Raises TokenizerError when it is not a BPE that has `eos_token` and the bytes of UTF-8. A byte
        that begins a character may be missing: texts with such a character are refused.
        """
        import tokenizers

        self._definition = definition
        self._config = dict(config or {})
        self.pretokenizer_name = pretokenizer_name
        self._spelling = _spelling(definition, where)
        try:
            self._tokenizer: tokenizers.Tokenizer = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the Rust library raises plain `Exception` for every broken definition
            raise TokenizerError(f"{TOKENIZER_FILE} is not valid: {error}", where=where, hint=DAMAGED) from error
        self._marked: tokenizers.Tokenizer | None = None  # the same, reading special tokens out of text
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special_ids = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        eos_token_id = self._tokenizer.token_to_id(eos_token)
        if eos_token_id not in self._special_ids:
            raise TokenizerError(f"the end-of-text token '{eos_token}' is missing", where=where, hint=DAMAGED)
        self.eos_token = eos_token
        self.eos_token_id: int = eos_token_id
        self.bos_token_id = self._expected_bos(bos_token, adds_bos)
        self._bytes_of = self._byte_table(where)
        self._words = WordTable(library_without_split(definition)) if splits_like_ours(definition) else None

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json` and `tokenizer_config.json`, of Rung or of another BPE that can spell every text.

        Raises TokenizerError when they are missing, damaged or of another sort of tokenizer.
        """
        found = read_tokenizer_folder(folder)
        own = found.config.get("rung", {})
        return cls(
            found.definition,
            eos_token=found.eos_token,
            pretokenizer_name=own.get("pretokenizer") if isinstance(own, dict) else None,
            where=str(folder / TOKENIZER_FILE),
            bos_token=found.bos_token,
            adds_bos=found.adds_bos,
            config=None if "rung" in found.config else {"eos_token": found.eos_token, **_without_code(found.config)},
        )

    def redefined(self, definition: str, *, where: str) -> Tokenizer:
        """A tokenizer like this one with another `tokenizer.json`."""
        return Tokenizer(
            definition,
            eos_token=self.eos_token,
            pretokenizer_name=self.pretokenizer_name,
            where=where,
            bos_token=None if self.bos_token_id is None else self._tokenizer.id_to_token(self.bos_token_id),
            adds_bos=self.bos_token_id is not None,
            config=self._config,
        )

    def save(self, folder: Path, *, model_max_length: int | None = None) -> None:
        """Write both files into the existing `folder`; `model_max_length`: the longest input in tokens.

        The settings of a tokenizer of another make stay what they were, that length included.
        """
        config: dict[str, Any] = self._config or {
            # not "Qwen2Tokenizer": transformers 5 gives that class an NFC normaliser, and decode(encode(x)) != x
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.eos_token,
            "eos_token": self.eos_token,
            "pad_token": self.eos_token,
            "unk_token": None,
            "add_bos_token": False,
            "add_eos_token": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "rung": {"pretokenizer": self.pretokenizer_name},
        }
        if model_max_length is not None:
            config = {"model_max_length": model_max_length, **config}
        write_text(folder / TOKENIZER_FILE, self._definition)
        write_json(folder / CONFIG_FILE, config)

    @property
    def definition(self) -> str:
        """The text of `tokenizer.json`."""
        return self._definition

    @property
    def sha256(self) -> str:
        """SHA-256 of `tokenizer.json`: two tokenizers with the same one give the same ids."""
        return hashlib.sha256(self._definition.encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included; ids are 0 .. vocab_size - 1."""
        return len(self._bytes_of)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`. Raises TokenizerError when it holds a lone surrogate, which UTF-8 cannot express, or a
        character whose bytes the vocabulary lacks.
        """
        self._refuse_unwritable([text])
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise unencodable([text]) from error
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of `text` with the token before it that the model expects, if any; the end-of-text token for "".

        That token stands before each document in training, so a text begins after it.
        """
        start = [] if self.bos_token_id is None else [self.bos_token_id]
        return [*start, *self.encode(text)] or [self.eos_token_id]

    def encode_marked(self, text: str) -> list[int]:
        """Token ids of `text`, in which the spelling of a special token is that token; nothing is put before it.

        That is what transformers does with any text. It is for text that a template made, never for a user's.
        """
        if self._marked is None:
            self._marked = type(self._tokenizer).from_str(self._definition)
            self._marked.no_truncation()
            self._marked.no_padding()
        self._refuse_unwritable([text])
        try:
            ids: list[int] = self._marked.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise unencodable([text]) from error
        return ids

    @property
    def adds_space(self) -> bool:
        """Whether a text is encoded with a space before it: then parts of a text cannot be encoded one by one."""
        return self._spelling.adds_space

    @property
    def start_token_id(self) -> int:
        """What stands before a text: the beginning-of-text token where one is expected, else the end-of-text token."""
        return self.eos_token_id if self.bos_token_id is None else self.bos_token_id

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text as a uint32 array. Raises TokenizerError like `encode`."""
        ids, lengths = self.encode_ragged(texts)
        return np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else []

    def encode_ragged(self, texts: Sequence[str]) -> Ragged:
        """Token ids of all texts in one uint32 array, and an int64 array of how many each has; the fastest way."""
        self._refuse_unwritable(texts)
        if self._words is None:
            return encode_in_library(self._tokenizer, texts)
        plain = [is_plain(text) for text in texts]
        if all(plain):
            return self._words.encode(texts)
        parts = [
            self._words.encode(list(run)) if key else encode_in_library(self._tokenizer, list(run))
            for key, run in _runs(texts, plain)
        ]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([lengths for _, lengths in parts])

    def encode_bytes(self, data: bytes) -> list[int]:
        """Token ids of any bytes: valid UTF-8 like `encode`, each other byte as its own token.

        `decode_bytes` gives `data` back exactly. Raises TokenizerError for a byte that the vocabulary lacks.
        """
        ids: list[int] = []
        for number, run in enumerate(_INVALID_BYTES.split(data.decode("utf-8", errors="surrogateescape"))):
            if number % 2:
                ids.extend(self._byte_id(ord(character) - 0xDC00) for character in run)
            elif run:
                ids.extend(self.encode(run))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens are left out, bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of `ids`; special tokens are left out. Raises TokenizerError for an id outside the vocabulary.

        Where encoding puts a space before a text, decoding takes it away again.
        """
        found = b"".join(map(self.token_bytes, ids))
        return found.removeprefix(b" ") if self._spelling.adds_space else found

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for within a text; empty for a special token."""
        if not 0 <= token_id < len(self._bytes_of):
            raise TokenizerError(
                f"token id {token_id} is outside the vocabulary of {self.vocab_size:,}",
                hint="use the tokenizer that belongs to this model",
            )
        return self._bytes_of[token_id]

    @property
    def spellings(self) -> list[str]:
        """Each token as `tokenizer.json` writes it: GPT-2's visible stand-ins for bytes, so without white space."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return sorted(vocabulary, key=vocabulary.__getitem__)

    def _expected_bos(self, bos_token: str | None, adds_bos: bool | None) -> int | None:
        if adds_bos is None:  # as the definition's own template has it
            first = self._tokenizer.encode("").ids[:1]
            return first[0] if first and first[0] in self._special_ids else None
        if not adds_bos or bos_token is None:
            return None
        number: int | None = self._tokenizer.token_to_id(bos_token)
        return number

    def _byte_id(self, byte: int) -> int:
        if byte not in self._byte_ids:
            raise TokenizerError(f"the vocabulary has no token for the byte 0x{byte:02X}")
        return self._byte_ids[byte]

    def _refuse_unwritable(self, texts: Sequence[str]) -> None:
        """Raise TokenizerError for a character that the vocabulary has no bytes for: the library would drop it."""
        if self._unwritable is None:
            return
        for number, text in enumerate(texts):
            if found := self._unwritable.search(text):
                raise TokenizerError(
                    f"text {number} holds U+{ord(found[0]):04X}, and the vocabulary has no token for its bytes",
                    where=f"character {found.start():,}",
                    hint="remove or replace it before encoding",
                )

    def _byte_table(self, where: str) -> list[bytes]:
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise TokenizerError("the token ids have gaps or repeat", where=where, hint=DAMAGED)
        spelled = self._spelling.byte_tokens
        self._byte_ids = {byte: vocabulary[token] for byte, token in enumerate(spelled) if token in vocabulary}
        missing = set(range(256)) - self._byte_ids.keys()
        if inner := [byte for byte in missing if 0x80 <= byte < 0xC0]:
            raise TokenizerError(
                f"{len(missing)} of the 256 bytes are not in the vocabulary, {len(inner)} of them within characters",
                where=where,
                hint=DAMAGED,
            )
        begun = "".join(map(characters_begun_by, sorted(missing)))
        self._unwritable = re.compile(f"[{begun}]") if begun else None
        table = [b""] * len(vocabulary)
        added = self._tokenizer.get_added_tokens_decoder()
        for token, token_id in vocabulary.items():
            if token_id in added:
                table[token_id] = b"" if token_id in self._special_ids else token.encode()
                continue
            stands_for = self._spelling.bytes_of(token)
            if stands_for is None:
                raise TokenizerError(f"token {token_id} ({token!r}) stands for no bytes", where=where, hint=DAMAGED)
            table[token_id] = stands_for
        return table


def train_tokenizer(
    texts: Iterable[str], *, kind: TokenizerKind = "bpe", vocab_size: int, progress: Progress = SILENT
) -> Tokenizer:
    """Choose a vocabulary of at most `vocab_size` tokens from `texts`.

    `byte` always has 257 tokens; `character` and `word` keep the most frequent when there are more than fit. The
    result does not depend on the order of the texts. Raises TokenizerError when `vocab_size` is below 257.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise TokenizerError(
            f"a vocabulary of {vocab_size} tokens is too small",
            hint=f"give at least {SMALLEST_VOCABULARY}: 256 bytes and the end-of-text token",
        )
    with progress.task("choosing the vocabulary", None, "B") as advance:
        if kind == "bpe":
            definition = learned_merges(_counting(texts, advance), vocab_size)
        elif kind == "character":
            definition = character_merges(_counting(texts, advance), vocab_size)
        elif kind == "word":
            definition = whole_words(_counting(texts, advance), vocab_size)
        else:
            definition = no_merges()
    tokenizer = Tokenizer(
        definition, eos_token=END_OF_TEXT, pretokenizer_name=PRETOKENIZER_NAME, where="the new tokenizer"
    )
    if kind in ("bpe", "word") and tokenizer.vocab_size < vocab_size:
        progress.say(
            f"the text repeats too little for {vocab_size:,} tokens: the vocabulary has {tokenizer.vocab_size:,}"
        )
    return tokenizer


def _runs(texts: Sequence[str], keys: Sequence[bool]) -> Iterator[tuple[bool, Iterator[str]]]:
    """Stretches of neighbouring texts with the same key."""
    for key, run in groupby(zip(keys, texts, strict=True), key=itemgetter(0)):
        yield key, (text for _, text in run)


def _counting(texts: Iterable[str], advance: Callable[[float], None]) -> Iterator[str]:
    for text in texts:
        yield text
        advance(len(text.encode()))


def _spelling(definition: str, where: str) -> Spelling:
    try:
        found = spelling_of(json.loads(definition))
    except ValueError as error:
        raise TokenizerError(f"{TOKENIZER_FILE} is not JSON: {error}", where=where, hint=DAMAGED) from error
    if found is None:
        raise TokenizerError(
            "this is not a byte-level BPE tokenizer, nor one with byte fallback",
            where=where,
            hint="Rung's language models read byte-level BPE, as GPT-2, Llama 3, Qwen and SmolLM use it, and BPE with "
            "byte fallback, as Llama 2 and Mistral do",
        )
    return found


def _without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the keys by which a folder asks others to run code that it brings along."""
    return {key: value for key, value in config.items() if key != "auto_map"}
