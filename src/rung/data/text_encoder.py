"""Texts to padded token ids for classifiers, by any `tokenizer.json` with the special tokens it puts around a text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rung.data.bert_vocabulary import definition_of_vocabulary, is_bert_vocabulary
from rung.data.token_words import ReadableToken, TokenWords, WordJoints
from rung.data.tokenizer import train_tokenizer
from rung.data.tokenizer_files import without_definition
from rung.data.words import Ragged, WordTable
from rung.errors import TokenizerError
from rung.runfolder import write_json, write_text

if TYPE_CHECKING:
    import tokenizers

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
PAD, UNKNOWN = "[PAD]", "[UNK]"
CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
_ONE_TOKEN = re.compile(r"\w+|[^\w\s]+")  # what the tokenizers library's `Whitespace` leaves whole
_ENCODED_AT_ONCE = 4096  # texts: their encodings as Python objects take some hundred bytes a token


@dataclass(frozen=True)
class EncodedTexts:
    """Token ids of texts, one after the other: `ids` (tokens,) int32, `lengths` (texts,) int64, each at least 1.

    `truncated` counts the texts that had more tokens than fit.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each text begins in `ids`."""
        return np.cumsum(self.lengths) - self.lengths

    def padded(self, rows: NDArray[np.int64], pad_token_id: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids of the texts `rows`, padded on the right to the longest of them, and a mask, true for tokens."""
        lengths = self.lengths[rows]
        places = np.arange(lengths.max(initial=0))
        mask = places < lengths[:, None]
        ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
        ids[mask] = self.ids[(self.starts[rows, None] + places)[mask]]
        return ids, mask


class TextEncoder:
    """A `tokenizer.json` and its `tokenizer_config.json`.

    Special tokens are never made from text: a text that spells `[SEP]` gets the tokens of its characters.
    """

    def __init__(self, definition: str, config: dict[str, Any], *, where: str) -> None:
        """Take the text of a `tokenizer.json`. Raises TokenizerError when it is broken or has no padding token."""
        import tokenizers

        try:
            self._tokenizer: tokenizers.Tokenizer = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the Rust library raises plain `Exception` for every broken definition
            raise TokenizerError(f"{TOKENIZER} is not valid: {error}", where=where) from error
        parts = json.loads(definition)
        if _take_case_from(config, parts):
            definition = json.dumps(parts, ensure_ascii=False)
            self._tokenizer = tokenizers.Tokenizer.from_str(definition)
        self._definition, self._config = definition, {**_usual_tokens(parts), **config}
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if self.token_id("pad_token") is None:  # usual for decoders, which never look at what comes after a text
            self._config["pad_token"] = self._config.get("eos_token")
        pad_token_id = self.token_id("pad_token")
        if pad_token_id is None:
            raise TokenizerError(
                "the tokenizer names neither a pad_token nor an eos_token, and batches of texts need one",
                where=where,
                hint=f"name one of its tokens as pad_token in {TOKENIZER_CONFIG}",
            )
        self.pad_token_id: int = pad_token_id
        # Each distinct word goes through the library once: 24 MB of novels take 4 s instead of 13 (one core).
        self._words = WordTable(self._encode_in_library, _words_of_bert) if _cuts_at_white_space(definition) else None

    @classmethod
    def load(cls, folder: Path) -> TextEncoder:
        """Read both files, and `special_tokens_map.json` where there is one.

        What older folders leave to the classes of transformers is filled in as those do it: the special tokens of BERT
        and RoBERTa, that `do_lower_case` counts, and BERT's whole definition where only its `vocab.txt` is there.
        Raises TokenizerError when files are missing or damaged.
        """
        path, configuration, roles = (folder / name for name in (TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS))
        try:
            definition = path.read_text(encoding="utf-8") if path.is_file() else None
            needed = definition is not None or configuration.is_file()
            config = json.loads(configuration.read_text(encoding="utf-8")) if needed else {}
            named = json.loads(roles.read_text(encoding="utf-8")) if roles.is_file() else {}
            if not all(isinstance(value, dict) for value in (config, named)):
                raise TokenizerError("the tokenizer's files are not JSON objects", where=str(folder))
            said = {role: token for role, token in config.items() if token is not None or role not in named}
            if definition is None:
                if not is_bert_vocabulary(folder, config):
                    raise without_definition(folder)
                definition, special = definition_of_vocabulary(folder, {**named, **said})
                said |= special
        except (OSError, ValueError) as error:
            raise TokenizerError(f"the tokenizer cannot be read ({error})", where=str(folder)) from error
        return cls(definition, {**named, **said}, where=str(path))

    def save(self, folder: Path, *, model_max_length: int) -> None:
        """Write both files into the existing `folder`, so that transformers' AutoTokenizer gives the same ids."""
        write_text(folder / TOKENIZER, self._definition)
        write_json(folder / TOKENIZER_CONFIG, {**self._config, "model_max_length": model_max_length})

    @property
    def vocab_size(self) -> int:
        """Number of token ids: one more than the largest."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    @property
    def sha256(self) -> str:
        """SHA-256 of `tokenizer.json`: two encoders with the same one give the same ids."""
        return hashlib.sha256(self._definition.encode()).hexdigest()

    @property
    def eos_token_id(self) -> int:
        """The token that closes a text: the separator where there is one. Raises TokenizerError when there is none."""
        for role in ("sep_token", "eos_token"):
            if (number := self.token_id(role)) is not None:
                return number
        raise TokenizerError("the tokenizer has neither a sep_token nor an eos_token")

    @property
    def tokens(self) -> list[str]:
        """All tokens in the order of their ids."""
        numbers = self._tokenizer.get_vocab(with_added_tokens=True)
        return sorted(numbers, key=numbers.__getitem__)

    @property
    def model_max_length(self) -> int | None:
        """The longest input in tokens that the configuration allows, if it says so."""
        length = self._config.get("model_max_length")
        return int(length) if isinstance(length, int | float) and length < 1e9 else None

    def token_id(self, role: str) -> int | None:
        """The id of the token with a role: "pad_token", "mask_token", ...; None when there is none."""
        token = self._config.get(role)
        if isinstance(token, dict):  # transformers also writes special tokens as objects
            token = token.get("content")
        return None if token is None else self._tokenizer.token_to_id(token)

    def word_joints(self) -> WordJoints:
        """Which tokens go on with the word of the token before them, as WordPiece's `##ing` does.

        Raises TokenizerError for tokenizers that do not tell.
        """
        return self._token_words.joints(self._tokenizer.get_vocab(with_added_tokens=True))

    def readable(self, token_id: int) -> ReadableToken:
        """A token as people read it, and whether it takes a space before it away."""
        return self._token_words.readable(self.token(token_id))

    def strips_left(self, token_id: int) -> bool:
        """Whether white space before a special token in a text belongs to the token, as it does to RoBERTa's mask."""
        added = self._tokenizer.get_added_tokens_decoder().get(token_id)
        return added is not None and added.lstrip

    @cached_property
    def _token_words(self) -> TokenWords:
        added = self._tokenizer.get_added_tokens_decoder()
        return TokenWords(self._definition, added={token.content: number for number, token in added.items()})

    def special_ids(self) -> list[int]:
        """Ids of all special tokens, ascending."""
        added = self._tokenizer.get_added_tokens_decoder()
        return sorted(number for number, token in added.items() if token.special)

    def encode(self, texts: Sequence[str], *, max_length: int | None = None, keep_rest: bool = False) -> EncodedTexts:
        """Token ids of `texts` with special tokens, at most `max_length` each: what is beyond is cut off and counted.

        With `keep_rest` the rest follows in pieces of its own instead. A text without a token becomes one padding
        token, so that every text has at least one.
        """
        if max_length is not None:
            self._tokenizer.enable_truncation(max_length)
        parts: list[NDArray[np.int32]] = []
        lengths: list[int] = []
        truncated = 0
        for start in range(0, len(texts), _ENCODED_AT_ONCE):
            encodings = self._tokenizer.encode_batch_fast(
                [clean(text) for text in texts[start : start + _ENCODED_AT_ONCE]]
            )
            kept = [piece for whole in encodings for piece in (whole, *whole.overflowing)] if keep_rest else encodings
            ids = [encoding.ids or [self.pad_token_id] for encoding in kept]
            lengths += map(len, ids)
            parts.append(np.fromiter(chain.from_iterable(ids), np.int32))
            truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        self._tokenizer.no_truncation()
        flat = np.concatenate([np.empty(0, np.int32), *parts])
        return EncodedTexts(flat, np.array(lengths, dtype=np.int64), truncated)

    def encode_ragged(self, texts: Sequence[str]) -> Ragged:
        """Token ids of all texts in one uint32 array, without special tokens, and an int64 array of their lengths."""
        cleaned = [clean(text) for text in texts]
        return self._encode_in_library(cleaned) if self._words is None else self._words.encode(cleaned)

    def _encode_in_library(self, texts: Sequence[str]) -> Ragged:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
        return np.concatenate([np.empty(0, np.uint32), *ids]), np.fromiter(map(len, ids), np.int64, len(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out: the words of the text, their case and spacing the tokenizer's."""
        text: str = self._tokenizer.decode(list(ids))
        return text

    def token(self, token_id: int) -> str:
        """A token as the vocabulary has it, for instance `##ing`."""
        return str(self._tokenizer.id_to_token(token_id))


def _take_case_from(config: dict[str, Any], parts: dict[str, Any]) -> bool:
    """Let `do_lower_case` of `config` hold in the tokenizer `parts`, as transformers does; whether that changed it."""
    lower_case, normalizer = config.get("do_lower_case"), parts.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer" or lower_case in (None, normalizer.get("lowercase")):
        return False
    normalizer["lowercase"] = lower_case
    return True


def _usual_tokens(parts: dict[str, Any]) -> dict[str, str]:
    """The special tokens that transformers' classes for a kind of tokenizer have by default, if it knows them all."""
    if (parts.get("model") or {}).get("type") == "WordPiece":
        usual = {"pad_token": PAD, "unk_token": UNKNOWN, "cls_token": "[CLS]", "sep_token": "[SEP]"}
        usual |= {"mask_token": "[MASK]"}
    elif (parts.get("post_processor") or {}).get("type") == "RobertaProcessing":
        usual = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
        usual |= {"mask_token": "<mask>", "bos_token": "<s>", "eos_token": "</s>"}
    else:
        return {}
    added = {token.get("content") for token in parts.get("added_tokens") or ()}
    return usual if added.issuperset(usual.values()) else {}


def _cuts_at_white_space(definition: str) -> bool:
    """Whether what stands between two white spaces is encoded as if it stood alone: so it is with BERT's pipeline."""
    parts = json.loads(definition)
    normalizer = parts.get("normalizer") or {}
    steps = [step.get("type") for step in normalizer.get("normalizers", [normalizer])]
    is_bert = steps in (["BertNormalizer"], ["NFC", "BertNormalizer"])
    return is_bert and (parts.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"


def _words_of_bert(text: str) -> list[str]:
    """What stands between the characters that BERT's normaliser makes a space of before it removes control characters.

    Not `str.split`, which also cuts at some that are removed: there, two halves are one word.
    """
    return text.replace("\n", " ").replace("\t", " ").replace("\r", " ").split(" ")


def clean(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot express, as U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def train_words(
    texts: Iterable[str], *, max_vocabulary: int, min_frequency: int = 1, known: Iterable[str] = ()
) -> TextEncoder:
    """Lower-cased words and runs of punctuation, the most frequent ones; all others are `[UNK]`.

    Equally frequent words are taken in alphabetical order, so the order of the texts does not matter. Where there is
    room, words of `known` follow: for networks that know more words than their texts hold.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=max_vocabulary, min_frequency=min_frequency, show_progress=False, special_tokens=[PAD, UNKNOWN]
    )
    tokenizer.train_from_iterator((clean(text) for text in texts), trainer=trainer)
    definition = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = definition["model"]["vocab"]
    for word in known:
        if len(vocabulary) >= max_vocabulary:
            break
        if _ONE_TOKEN.fullmatch(word):
            vocabulary.setdefault(word.lower(), len(vocabulary))
    return TextEncoder(
        json.dumps(definition, indent=2, ensure_ascii=False),
        {**CONFIG, "pad_token": PAD, "unk_token": UNKNOWN},
        where="the new tokenizer",
    )


def train_byte_pairs(texts: Iterable[str], *, vocab_size: int) -> TextEncoder:
    """The byte-level BPE of Rung's language models (`rung.data.tokenizer`); nothing is put around a text."""
    tokenizer = train_tokenizer(map(clean, texts), vocab_size=vocab_size)
    end = tokenizer.eos_token
    config = {**CONFIG, "bos_token": end, "eos_token": end, "pad_token": end, "add_prefix_space": False}
    return TextEncoder(tokenizer.definition, config, where="the new tokenizer")
