"""The feed-forward rung's network: the mean of n-gram embeddings, then a linear layer (fastText's model).

Joulin, Grave, Bojanowski and Mikolov 2017, "Bag of Tricks for Efficient Text Classification", section 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn


class BagClassifier(nn.Module):
    """Scores of items that are bags of embedding rows.

    Embeddings start uniform in +-1/`hidden_size`, the output at zero and without a bias, as fastText's do. (A fixed
    bias at the logarithm of class shares was worse where classes are unequal: see LOG.md.)
    """

    def __init__(
        self, num_rows: int, hidden_size: int, num_classes: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        initial = torch.empty(num_rows, hidden_size).uniform_(-1 / hidden_size, 1 / hidden_size, generator=generator)
        self.embeddings = nn.EmbeddingBag.from_pretrained(initial, freeze=False, mode="mean", sparse=True)
        self.classifier = nn.Linear(hidden_size, num_classes, bias=False)
        nn.init.zeros_(self.classifier.weight)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The embedding (total, hidden) of each row number in `input_ids` (total,)."""
        return F.embedding(input_ids, self.embeddings.weight)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Scores (batch, classes) of the bags `input_ids[offsets[i]:offsets[i + 1]]`, `offsets` (batch,)."""
        scores: torch.Tensor = self.classifier(self.embeddings(batch["input_ids"], batch["offsets"]))
        return scores
