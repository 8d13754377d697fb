"""What a classifier says of items: probabilities by class, and where it failed to answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """`probabilities` (items, classes) float64, rows summing to 1; `failed` (items,) where no answer could be read.

    A failed item counts as wrong whatever its probabilities are (a prompted model's answer that names no class).
    """

    probabilities: NDArray[np.float64]
    failed: NDArray[np.bool_] | None = None

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The probabilities: what two predictions of the same items are compared by."""
        return self.probabilities

    @property
    def answers(self) -> list[int]:
        """The most probable class of each item; -1 where it failed."""
        return list(self.labels.tolist())

    @property
    def labels(self) -> NDArray[np.int64]:
        """(items,) the most probable class, the first of equals; -1 where it failed."""
        best = self.probabilities.argmax(axis=1).astype(np.int64)
        return best if self.failed is None else np.where(self.failed, -1, best)
