"""Span corruption: raw text as pairs of a source with gaps and a target that fills them.

The pretraining objective of T5 (Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
Text-to-Text Transformer", sections 3.1.4 and 3.3.4), with which an encoder-decoder learns from text without targets:

    source   Thank you <X> me to your party <Y> week .
    target   <X> for inviting <Y> last <Z>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rung.data.hashing import mix64
from rung.data.order import keyed_integers
from rung.errors import DataError

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # the step of SplitMix64 (Steele et al. 2014)


@dataclass(frozen=True)
class SpanCorruption:
    """Hides spans of tokens; which ones depends on nothing but `seed`, epoch and sample number.

    `noise_density` is the share of tokens hidden, `mean_span` how many follow each other on average; the defaults are
    T5's. `sentinels` are tokens that occur in no text, in the order in which they stand for gaps.
    """

    sentinels: tuple[int, ...]
    noise_density: float = 0.15
    mean_span: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        """DataError for shares and lengths that make no sense, or sentinels that repeat."""
        if not 0 < self.noise_density < 1:
            raise DataError(f"noise_density must lie between 0 and 1, not {self.noise_density}")
        if not self.mean_span >= 1:
            raise DataError(f"mean_span must be at least 1, not {self.mean_span}")
        if len(set(self.sentinels)) != len(self.sentinels):
            raise DataError("the same sentinel is given twice")

    def spans(self, length: int) -> tuple[int, int]:
        """How many of `length` tokens are hidden, and in how many spans."""
        hidden = min(max(round(length * self.noise_density), 1), length - 1)
        spans = max(round(hidden / self.mean_span), 1)
        return hidden, min(spans, length - hidden)

    def corrupt(self, tokens: Sequence[int], epoch: int, sample: int) -> tuple[list[int], list[int]]:
        """Return source and target of `tokens`, which number at least two; end tokens are the caller's to add.

        The text begins with a token that stays. In the source a sentinel stands for each span; in the target it comes
        before the tokens it stood for, and one more sentinel ends the last of them. DataError for fewer than two
        tokens, or more spans than there are sentinels for.
        """
        if len(tokens) < 2:
            raise DataError(f"a text of {len(tokens)} tokens leaves nothing to hide", hint="leave it out")
        hidden, spans = self.spans(len(tokens))
        if spans + 1 > len(self.sentinels):
            raise DataError(
                f"{len(tokens):,} tokens need {spans + 1} sentinels, there are {len(self.sentinels)}",
                hint="make shorter windows of the text, or give the tokenizer more sentinels",
            )
        kept_key, hidden_key = keyed_integers(f"span corruption {sample}", self.seed, epoch, 2)
        kept_lengths = _random_parts(len(tokens) - hidden, spans, kept_key)
        hidden_lengths = _random_parts(hidden, spans, hidden_key)
        source: list[int] = []
        target: list[int] = []
        place = 0
        for sentinel, kept, gap in zip(self.sentinels, kept_lengths.tolist(), hidden_lengths.tolist(), strict=False):
            source += [*tokens[place : place + kept], sentinel]
            target += [sentinel, *tokens[place + kept : place + kept + gap]]
            place += kept + gap
        return source, [*target, self.sentinels[spans]]


def _random_parts(total: int, parts: int, key: int) -> NDArray[np.int64]:
    """Split `total` into `parts` numbers of at least 1, every way equally likely: their ends are drawn without
    replacement, by sorting keyed hashes.
    """
    numbers = np.arange(total - 1, dtype=np.uint64) * _GOLDEN_GAMMA + np.uint64(key)
    ends = np.sort(np.argsort(mix64(numbers), kind="stable")[: parts - 1]) + 1
    return np.diff(ends, prepend=0, append=total)
