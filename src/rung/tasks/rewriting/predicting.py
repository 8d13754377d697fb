"""A text-to-text network as a rung of a comparison sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rung.tasks.rewriting.rewriter import Rewriter, load_rewriter


@dataclass(frozen=True)
class Rewritten:
    """What was written for each source, and the score that beam search gave it, (items,) float64."""

    texts: list[str]
    scores: NDArray[np.float64]

    @property
    def numbers(self) -> NDArray[np.float64]:
        """(items, 1) the scores: what two predictions are compared by, bit for bit."""
        return self.scores[:, None]

    @property
    def answers(self) -> list[str]:
        """The texts."""
        return self.texts


class RewritingPredictor:
    """Answers sources by beam search, as the network was trained to be used."""

    asked = None
    """It computes here and asks no one."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter

    @property
    def num_parameters(self) -> int:
        """Learned numbers."""
        return self._rewriter.num_parameters

    def predict(self, inputs: Sequence[str], *, batch_size: int = 32) -> Rewritten:
        """The best target for each source, `batch_size` at a time; GenerationError for one that is too long."""
        found = [
            best[0]
            for start in range(0, len(inputs), batch_size)
            for best in self._rewriter.rewrite_many(inputs[start : start + batch_size])
        ]
        return Rewritten([one.text for one in found], np.array([one.score for one in found], dtype=np.float64))


def load_predictor(folder: Path) -> RewritingPredictor:
    """Open a run folder. Raises RunFolderError when there is no model or it is damaged."""
    return RewritingPredictor(load_rewriter(folder))
