"""Texts that were read before, so that one which begins alike is read from where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rung.generation.token_decoder import ExtendingDecoder


@dataclass(frozen=True)
class _KeptText:
    tokens: list[int]
    state: torch.Tensor  # what `ExtendingDecoder.keep` gave for them


class PrefixCache:
    """The last texts of an engine, with their keys and values: `Engine.prefix_cache` makes one, `stream` takes it.

    Only what stands behind the longest common beginning with one of them is read, so a history that was edited, cut or
    answered anew is right by itself. Scores are those of a text that is read anew, up to rounding. Each text takes as
    much memory as its place in the engine does; a conversation needs one, a server as many as it has conversations.
    `tokens_reused` and `tokens_read` count what prompts consisted of.
    """

    def __init__(self, decoder: ExtendingDecoder, max_texts: int) -> None:
        self.decoder = decoder
        self.tokens_reused = self.tokens_read = 0
        self._max_texts = max_texts
        self._texts: list[_KeptText] = []  # the one used last at the end

    def read(self, tokens: Sequence[int], row: int) -> torch.Tensor:
        """Let the decoder read a prompt into a row; return the scores (1, vocabulary) after it."""
        # The last token is read in any case: its scores are wanted.
        common = [_common_length(text.tokens, tokens[:-1]) for text in self._texts]
        start = max(common, default=0)
        self.tokens_reused += start
        self.tokens_read += len(tokens) - start
        if start == 0:
            return self.decoder.prefill([tokens], row)
        text = self._texts.pop(common.index(start))
        self._texts.append(text)
        return self.decoder.extend(text.state[:, :, :start], tokens[start:], row)

    @torch.inference_mode()
    def keep(self, tokens: Sequence[int], row: int) -> None:
        """Keep a text that the decoder has read into a row, in place of those it goes on from, or of the oldest."""
        if not tokens:
            return
        self._texts = [text for text in self._texts if _common_length(text.tokens, tokens) < len(text.tokens)]
        del self._texts[: max(0, len(self._texts) + 1 - self._max_texts)]  # before the copy is made
        self._texts.append(_KeptText(list(tokens), self.decoder.keep(row, len(tokens))))


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    parts = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(parts, min(len(one), len(other)))
