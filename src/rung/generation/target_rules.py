"""What may stand in a target, beyond what the network thinks of it: `generation_config.json` of encoder-decoders.

The rules are those of transformers' logits processors, so that equal weights give equal targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rung.errors import UsageError


@dataclass(frozen=True)
class TargetRules:
    """Where targets start and end, what they must hold and what they must not.

    A target starts from the token `start`, which is no part of it, and ends with `end`. `forced_first` (BART's
    `forced_bos_token_id`) is its first token, at no cost; with `forced_end` the last token that its limit allows is
    `end`, at no cost, else it may stop without one. `end` does not come before `min_tokens` other tokens. `never`:
    tokens that do not occur. No `no_repeat_ngram_size` tokens in a row occur twice; 0 allows it. With `renormalised`,
    probabilities add up to 1 over what is left.
    """

    start: int
    end: int
    never: tuple[int, ...] = ()
    forced_first: int | None = None
    forced_end: bool = True
    min_tokens: int = 0
    no_repeat_ngram_size: int = 0
    renormalised: bool = False

    def __post_init__(self) -> None:
        """Check what a file may have brought."""
        for name in ("min_tokens", "no_repeat_ngram_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise UsageError(f"{name} must be a whole number of at least 0, not {value!r}", where=name)

    def apply(self, scores: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        """Return `scores` (rows, vocabulary) of the next token with minus infinity where a rule forbids it.

        Changes `scores` in place. `written` (rows, time): the tokens of each row so far.
        """
        time = written.shape[1]
        if time == 0 and self.forced_first is not None:
            scores.fill_(-torch.inf)
            scores[:, self.forced_first] = 0.0
            return scores
        scores[:, torch.tensor(self.never, dtype=torch.int64, device=scores.device)] = -torch.inf
        if time < self.min_tokens:
            scores[:, self.end] = -torch.inf
        if self.no_repeat_ngram_size:
            for row, tokens in enumerate(written.tolist()):
                scores[row, self._repeated([self.start, *tokens])] = -torch.inf
        return scores.log_softmax(-1) if self.renormalised else scores

    def _repeated(self, written: list[int]) -> list[int]:
        """The tokens that would complete an n-gram for the second time."""
        size = self.no_repeat_ngram_size
        if len(written) + 1 < size:
            return []
        before = written[len(written) - size + 1 :]
        places = range(len(written) - size + 1)
        return [written[place + size - 1] for place in places if written[place : place + size - 1] == before]
