"""One subword tokenizer for both sides of parallel text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from rung.data.byte_level import END_OF_TEXT, SMALLEST_VOCABULARY
from rung.data.text_encoder import TOKENIZER, EncodedTexts, TextEncoder, clean
from rung.data.tokenizer import train_tokenizer
from rung.data.tokenizer_files import without_definition
from rung.errors import TokenizerError
from rung.progress import SILENT, Progress

PAD = "<pad>"
_SENTINEL = "<extra_id_{}>"  # T5's spelling
_BYTES_PER_TOKEN = 1000
"""Bytes of training text for each token of the vocabulary: a merge that was seen only a few times teaches nothing, and
the output matrix is half the work of a small network."""
_SMALLEST, _LARGEST = 512, 32_768


class PairTokenizer(TextEncoder):
    """A `TextEncoder` that ends each text with its end token, and turns ids back into text."""

    @classmethod
    def load(cls, folder: Path) -> PairTokenizer:
        """Read both files. Raises TokenizerError when they are missing, damaged or without an end token."""
        if not (folder / TOKENIZER).is_file():
            raise without_definition(folder)
        found = TextEncoder.load(folder)
        tokenizer = cls(found._definition, found._config, where=str(folder))
        _ = tokenizer.eos_token_id  # raises where there is none
        return tokenizer

    @property
    def definition(self) -> str:
        """The text of `tokenizer.json`."""
        return self._definition

    @property
    def sentinels(self) -> tuple[int, ...]:
        """The tokens that stand for gaps in pretraining, in their order; none where there was no pretraining."""
        added = {token.content: number for number, token in self._tokenizer.get_added_tokens_decoder().items()}
        names = (_SENTINEL.format(number) for number in range(len(added)))
        return tuple(added[name] for name in names if name in added)

    def encode_targets(self, texts: Sequence[str]) -> EncodedTexts:
        """The same as `encode`: both sides are cut alike."""
        return self.encode(texts)

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token ids, special tokens left out; bytes that are not UTF-8 become U+FFFD."""
        return [str(text) for text in self._tokenizer.decode_batch([list(row) for row in rows])]


def choose_pair_vocabulary(num_bytes: int) -> int:
    """A power of two near one token for every 1,000 bytes of training text, between 512 and 32,768."""
    wanted = max(1, num_bytes / _BYTES_PER_TOKEN)
    return min(max(1 << round(math.log2(wanted)), _SMALLEST), _LARGEST)


def train_pair_tokenizer(
    texts: Iterable[str], *, vocab_size: int, num_sentinels: int = 0, progress: Progress = SILENT
) -> PairTokenizer:
    """Learn byte-level BPE (`rung.data.tokenizer`) from the texts of both sides.

    `vocab_size` includes `<pad>` and, for pretraining, `num_sentinels` special tokens that stand for gaps. A space is
    put before each text, so that its first word is the word that it is elsewhere, and taken away again when decoding.
    Raises TokenizerError for a vocabulary too small for all bytes.
    """
    from tokenizers import Tokenizer, decoders, normalizers, processors

    added = [PAD, *(_SENTINEL.format(number) for number in range(num_sentinels))]
    if vocab_size - len(added) < SMALLEST_VOCABULARY:
        raise TokenizerError(
            f"a vocabulary of {vocab_size} tokens is too small",
            hint=f"give at least {SMALLEST_VOCABULARY + len(added)}",
        )
    learned = train_tokenizer(
        (f" {clean(text)}" for text in texts), vocab_size=vocab_size - len(added), progress=progress
    )
    tokenizer = Tokenizer.from_str(learned.definition)
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.add_special_tokens(added)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
    }
    return PairTokenizer(tokenizer.to_str(pretty=True), config, where="the new tokenizer")
