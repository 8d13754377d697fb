"""What the engine asks of a language model: read prompts, then one token a text and step, and score what may follow.

A decoder keeps keys and values for it, a recurrent network its state, a feed-forward network or an n-gram model the
last tokens. The engine knows this protocol alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from rung.errors import GenerationError
from rung.generation.carried_decoding import CarriedDecoder
from rung.generation.decoding import FusedDecoder
from rung.generation.matrices import Precision
from rung.generation.ngram_decoding import NgramDecoder
from rung.nets.body import carries_state
from rung.nets.decoder import CausalLM
from rung.nets.gpt2 import GPT2LM
from rung.nets.ngram import NgramModel


class TokenDecoder(Protocol):
    """The texts of a batch, each in a row of its own, and the scores of the tokens that may follow each."""

    @property
    def device(self) -> torch.device:
        """Where the scores are."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens that prompt and text may have together."""
        ...

    @property
    def vocab_size(self) -> int:
        """Columns of the scores."""
        ...

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens that end a text, as far as the model itself says so."""
        ...

    def open(self, rows: int, capacity: int) -> None:
        """Make room for `rows` texts of at most `capacity` tokens; what was there before is gone."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]], first_row: int) -> torch.Tensor:
        """Read `prompts` into the rows from `first_row` on; return the scores (prompts, vocabulary) after each."""
        ...

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Read one token a row, at its position; return the scores (rows, vocabulary) of the token after it.

        Scores are unnormalised log-probabilities, float32.
        """
        ...

    def move(self, source: int, target: int) -> None:
        """Copy what is kept of a text to another row."""
        ...


@runtime_checkable
class ExtendingDecoder(TokenDecoder, Protocol):
    """A decoder that can go on from any place of a text it has read; one that carries a state of fixed size cannot."""

    def keep(self, row: int, length: int) -> torch.Tensor:
        """A copy of what is kept of the first `length` tokens of a row; its third dimension is theirs."""
        ...

    def extend(self, beginning: torch.Tensor, tokens: Sequence[int], row: int) -> torch.Tensor:
        """Read `tokens` into a row, behind a text of which `keep` gave `beginning`; return scores (1, vocabulary)."""
        ...


def token_decoder(net: Any, precision: Precision, *, invariant: bool) -> TokenDecoder:
    """The decoder for `net`. GenerationError when there is none for its kind, or none in this `precision`."""
    if isinstance(net, CausalLM | GPT2LM):
        return FusedDecoder(net, precision, invariant=invariant)
    if carries_state(net):
        return CarriedDecoder(net, precision, invariant=invariant)
    if isinstance(net, NgramModel):
        return NgramDecoder(net, precision)
    raise GenerationError(f"a {type(net).__name__} does not write text", hint="give the folder of a language model")
