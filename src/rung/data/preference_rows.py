"""Pairs of answers as rows of tokens: two rows a pair, the prompt with its chosen and with its rejected answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.data.chat_template import ChatTemplate
from rung.data.order import SampleOrder
from rung.data.packing import PackedRows, TokenExamples, longer_context
from rung.data.preferences import Preference
from rung.data.tokenizer import Tokenizer
from rung.errors import DataError
from rung.progress import SILENT, Progress

if TYPE_CHECKING:
    from torch import Tensor

Ints = NDArray[np.int64]


class PairRows(PackedRows):
    """Examples 2 n and 2 n + 1, a row each: the prompt of pair n with its chosen and with its rejected answer.

    Its length is that in pairs, and batches are asked for by pair.
    """

    def __init__(self, examples: TokenExamples, *, pad_token_id: int) -> None:
        super().__init__(examples, context_length=int(examples.lengths.max()), pad_token_id=pad_token_id)
        self.rows = [[number] for number in range(len(examples))]

    def __len__(self) -> int:
        return len(self.rows) // 2

    @cached_property
    def answer_tokens(self) -> Ints:
        """(pairs, 2) how many tokens of each answer are judged."""
        return np.add.reduceat(self.examples.learned, self.examples.starts, dtype=np.int64).reshape(-1, 2)

    def collate(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The batch of these pairs: (2 x pairs, time), chosen and rejected by turns."""
        return super().collate([row for pair in rows for row in (2 * pair, 2 * pair + 1)])


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as tokens: `kept[i]` is the number of the i-th in `rows`; `left_out` did not fit the context."""

    rows: PairRows
    kept: list[int]
    left_out: int


def encode_pairs(
    pairs: Sequence[Preference],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    context_length: int,
    base_length: int,
    progress: Progress = SILENT,
) -> EncodedPairs:
    """Render both answers of each pair; of the tokens, those of the answer alone are judged.

    A pair of which one side has more than `context_length` + 1 tokens is left out: cut answers would be compared by
    how they begin. `base_length`: the longest context that the base reads. Raises DataError when none is left, and as
    the template does.
    """
    rendered, kept = [], []
    with progress.task("rendering pairs", len(pairs), "pairs") as advance:
        for number, pair in enumerate(pairs):
            sides = [template.render_answer(pair.prompt, answer, tokenizer) for answer in (pair.chosen, pair.rejected)]
            if max(map(len, sides)) <= context_length + 1 and all(any(side.assistant[1:]) for side in sides):
                rendered += sides
                kept.append(number)
            advance(1)
    if not kept:
        raise DataError(
            f"no pair fits the context of {context_length:,} tokens",
            hint=f"{longer_context(context_length, base_length)}, or shorter pairs",
        )
    rows = PairRows(TokenExamples.of(rendered), pad_token_id=tokenizer.eos_token_id)
    return EncodedPairs(rows, kept, len(pairs) - len(kept))


class PairBatches:
    """Pairs with `reference` (pairs, 2), what the reference network gives each answer.

    Drawn anew each epoch by (`seed`, epoch); without a seed, sample n is pair n.
    """

    def __init__(self, rows: PairRows, reference: NDArray[np.float64], *, seed: int | None = None) -> None:
        self._rows, self._reference = rows, reference
        self._order = None if seed is None else SampleOrder(len(rows), seed)

    def __len__(self) -> int:
        return len(self._rows)

    def locate(self, sample_numbers: Ints) -> Ints:
        """The pair of each sample."""
        numbers = np.asarray(sample_numbers)
        return numbers if self._order is None else self._order.locate(numbers)[1]

    def batch(self, sample_numbers: Ints) -> dict[str, Tensor]:
        """The pairs of these samples; see `PairRows`."""
        import torch

        chosen = self.locate(sample_numbers)
        reference = torch.from_numpy(self._reference[chosen].astype(np.float32))
        return {**self._rows.collate(chosen.tolist()), "reference": reference}
