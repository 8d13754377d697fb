"""The tokenizer of an encoder-decoder, whatever files it is in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rung.data.marian_tokenizer import MarianTokenizer, holds_marian_tokenizer
from rung.data.pair_tokenizer import PairTokenizer
from rung.data.text_encoder import EncodedTexts
from rung.errors import TokenizerError


class SequenceTokenizer(Protocol):
    """Makes tokens of sources and of targets, and texts of tokens."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids: one more than the largest."""
        ...

    @property
    def sentinels(self) -> tuple[int, ...]:
        """Tokens that stand for gaps in pretraining, which no target holds."""
        ...

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Token ids of sources, each with its end token."""
        ...

    def encode_targets(self, texts: Sequence[str]) -> EncodedTexts:
        """Token ids of targets, each with its end token."""
        ...

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token ids, special tokens left out."""
        ...


def load_sequence_tokenizer(folder: Path, *, vocab_size: int | None = None) -> SequenceTokenizer:
    """Read a folder with `tokenizer.json`, or with `source.spm`, `target.spm` and `vocab.json` as Marian has them.

    Raises TokenizerError when files are missing or damaged, or there are more token ids than `vocab_size`, those that
    the network knows.
    """
    found: SequenceTokenizer = (
        MarianTokenizer.load(folder) if holds_marian_tokenizer(folder) else PairTokenizer.load(folder)
    )
    if vocab_size is not None and found.vocab_size > vocab_size:
        raise TokenizerError(
            f"the tokenizer has {found.vocab_size:,} token ids, the network only {vocab_size:,}",
            where=str(folder),
            hint="tokenizer and weights are of two models: take both from one",
        )
    return found
