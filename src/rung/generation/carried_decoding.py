"""One token a step with networks that carry a state of fixed size: recurrent ones, and those of a few last tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rung.errors import GenerationError
from rung.generation.matrices import Precision
from rung.nets.body import CarryingLanguageModel, States


class CarriedDecoder:
    """The states of a batch of texts, a row each; what a text costs does not grow with its length.

    Scores are float32 in any case, the rest is computed in `precision`. With `invariant`, each text is read alone, so
    that its scores have the same bits whatever else is in the batch.
    """

    def __init__(self, net: CarryingLanguageModel, precision: Precision, *, invariant: bool) -> None:
        """Use `net` as it is, uncopied. GenerationError for "int8", which only decoders are computed in."""
        if precision == "int8":
            raise GenerationError(
                f"a {net.config.model_type} does not compute in int8", hint="give --precision fp32 or bf16"
            )
        self._net = net
        self._dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self._invariant = invariant
        self._state = torch.empty(0)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._net.lm_head.weight.device

    @property
    def context_length(self) -> int:
        """Tokens that prompt and text may have together: no limit of the network's, but one for an endless text."""
        return self._net.config.max_length

    @property
    def vocab_size(self) -> int:
        """Columns of the scores."""
        return self._net.config.vocab_size

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The end-of-text token."""
        return frozenset({self._net.config.eos_token_id})

    def open(self, rows: int, capacity: int) -> None:  # noqa: ARG002 - a state has one size
        """Make room for `rows` texts; what was there before is gone."""
        self._net.train(False)
        self._state = self._net.model.begin(rows)

    def prefill(self, prompts: Sequence[Sequence[int]], first_row: int) -> torch.Tensor:
        """Read `prompts` into the rows from `first_row` on, one by one; return the scores after each."""
        scores = []
        for row, prompt in enumerate(prompts, start=first_row):
            states = self._read([prompt], self._net.model.begin(1))
            self._state[row] = states.state[0]
            scores.append(self._scores(states.hidden[:, -1]))
        return torch.cat(scores)

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:  # noqa: ARG002 - states know
        """Read one token a row; return the scores (rows, vocabulary) of the token after it."""
        rows = range(len(tokens))
        groups = [slice(row, row + 1) for row in rows] if self._invariant else [slice(0, len(tokens))]
        scores = []
        for group in groups:
            states = self._read([[token] for token in tokens[group]], self._state[group])
            self._state[group] = states.state
            scores.append(self._scores(states.hidden[:, -1]))
        return torch.cat(scores)

    def move(self, source: int, target: int) -> None:
        """Copy a text's state to another row."""
        self._state[target] = self._state[source]

    def _read(self, tokens: Sequence[Sequence[int]], state: torch.Tensor) -> States:
        return self._net.model.read(torch.tensor(tokens, device=self.device), state, self._dtype)

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._net.lm_head(hidden).float()
