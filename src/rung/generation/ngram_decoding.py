"""One token a step with an n-gram model: a text's whole past is the numbers of its last few n-grams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rung.errors import GenerationError
from rung.generation.matrices import Precision
from rung.nets.ngram import NgramModel


class NgramDecoder:
    """The contexts of a batch of texts, a row each. Every text is read alone, so its scores never depend on others."""

    def __init__(self, model: NgramModel, precision: Precision) -> None:
        """Use `model` as it is, uncopied. GenerationError for another precision than "fp32": nothing is multiplied."""
        if precision != "fp32":
            raise GenerationError(
                f"an n-gram model looks its numbers up: there is nothing to compute in {precision}",
                hint="leave --precision out",
            )
        self._model = model
        self._state = model.begin(0)

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def context_length(self) -> int:
        """Tokens that prompt and text may have together: no limit of the model's, but one for an endless text."""
        return self._model.config.max_length

    @property
    def vocab_size(self) -> int:
        """Columns of the scores."""
        return self._model.config.vocab_size

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The end-of-text token."""
        return frozenset({self._model.config.eos_token_id})

    def open(self, rows: int, capacity: int) -> None:  # noqa: ARG002 - a state has one size
        """Make room for `rows` texts; what was there before is gone."""
        self._state = self._model.begin(rows)

    def prefill(self, prompts: Sequence[Sequence[int]], first_row: int) -> torch.Tensor:
        """Read the ends of `prompts` into the rows from `first_row` on; return the scores after each."""
        order = self._model.config.order
        for row, prompt in enumerate(prompts, start=first_row):
            state = self._model.begin(1)
            for token in prompt[-order:]:
                state = self._model.advance(state, np.array([token]))
            self._state[row] = state[0]
        return self._scores(self._state[first_row : first_row + len(prompts)])

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:  # noqa: ARG002 - states know
        """Read one token a row; return the scores (rows, vocabulary) of the token after it."""
        rows = slice(0, len(tokens))
        self._state[rows] = self._model.advance(self._state[rows], np.array(tokens))
        return self._scores(self._state[rows])

    def move(self, source: int, target: int) -> None:
        """Copy a text's contexts to another row."""
        self._state[target] = self._state[source]

    def _scores(self, state: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._model.next_logprobs(state).astype(np.float32))
