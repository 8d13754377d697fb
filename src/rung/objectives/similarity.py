"""Objectives for sentence encoders: vectors that are close where texts are alike.

A batch holds `input_ids` and `mask` (rows, columns, time), from `rung.data.related_batches`. Two of the three losses
compare rows with each other: they are functions of the whole batch and do not add up over micro-batches or ranks, so
they are to be trained with the whole batch at once (`WHOLE_BATCH`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from rung.objectives.loss import Loss

SimilarityLoss = Literal["cosent", "cosine", "ranking"]
WHOLE_BATCH: tuple[SimilarityLoss, ...] = ("cosent", "ranking")
"""Losses that need all rows of a batch at once."""
SCALE = 20.0
"""What cosines are multiplied by, one over the temperature: sentence-transformers' default."""
_GROUPS = 4


@dataclass(frozen=True)
class CoSent:
    """Rank pairs by cosine as their scores do: log(1 + sum of exp(scale (cos j - cos i)) over i, j with score i > j).

    Huang et al. 2024, "CoSENT: Consistent Sentence Embedding via Similarity Ranking" (IEEE/ACM TASLP 32), equation 8.
    Only the order of the scores counts.
    """

    scale: float = SCALE

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss of the batch, times its rows, and the number of rows."""
        first, second = _vectors(net, batch).unbind(1)
        cosines, scores = self.scale * (first * second).sum(1), batch["scores"]
        is_wrong = cosines[None, :] - cosines[:, None]  # [i, j]: how much more alike j seems than i
        is_wrong = is_wrong.masked_fill(scores[:, None] <= scores[None, :], -torch.inf).flatten()
        return _of_rows(torch.cat([is_wrong.new_zeros(1), is_wrong]).logsumexp(0), len(scores))


@dataclass(frozen=True)
class CosineRegression:
    """The squared distance of the cosine from the score, which is moved from `low`..`high` to 0..1.

    Reimers and Gurevych 2019, section 3, "Regression Objective Function".
    """

    low: float
    high: float

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the sum over rows, and their number. It adds up over micro-batches."""
        first, second = _vectors(net, batch).unbind(1)
        wanted = (batch["scores"] - self.low) / (self.high - self.low)
        errors = ((first * second).sum(1) - wanted).square()
        return Loss(errors.sum(), _count(errors))


@dataclass(frozen=True)
class MultipleNegatives:
    """Find the second text of a row among those of all rows, and the third ones of triplets, by cosine.

    Henderson et al. 2017 (arXiv 1705.00652), section 4.4; cross-entropy of scale times cosine. A text that is also the
    right answer, or the negative of a row with the same first text, is left out of the candidates.
    """

    scale: float = SCALE

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the sum over rows, and their number; the metric `correct` is the number of rows found."""
        vectors, texts = _vectors(net, batch), batch["texts"]
        anchors, candidates = vectors[:, 0], vectors[:, 1:].transpose(0, 1).flatten(0, 1)
        scores = self.scale * anchors @ candidates.T
        rows = len(anchors)
        names, columns = texts[:, 1:].T.flatten(), texts.shape[1] - 1
        also_right = names[None, :] == texts[:, 1:2]
        # The positive of a row with the same anchor is right for this one as well; its negative says nothing here.
        also_right |= (texts[:, :1] == texts[None, :, 0]).repeat(1, columns)
        here = torch.eye(rows, dtype=torch.bool, device=texts.device)
        also_right &= ~torch.cat([here, here & (texts[:, 1:2] != texts[:, 2:3])], 1) if columns == 2 else ~here
        labels = torch.arange(rows, device=texts.device)
        scores = scores.masked_fill(also_right, -torch.inf)
        correct = (scores.detach().argmax(1) == labels).sum()
        return Loss(F.cross_entropy(scores, labels, reduction="sum"), _count(anchors), {"correct": correct})


def _vectors(net: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Vectors of length 1 in float32, (rows, columns, dimension).

    The texts go through the network in a few groups of similar length: rows of a batch are of all lengths.
    """
    ids, mask = batch["input_ids"].flatten(0, 1), batch["mask"].flatten(0, 1)
    lengths = mask.sum(1)
    order = lengths.argsort(stable=True)
    found = []
    for some in torch.split(order, -(-len(order) // _GROUPS)):
        longest = int(lengths[some].max())
        group = {"input_ids": ids[some, :longest]}
        if int(lengths[some].min()) < longest:
            group["mask"] = mask[some, :longest]
        found.append(net(group))
    vectors = torch.cat(found)[order.argsort()]
    return F.normalize(vectors.float(), dim=1).view(*batch["input_ids"].shape[:2], -1)


def _of_rows(mean: torch.Tensor, rows: int) -> Loss:
    return Loss(mean * rows, torch.full((), rows, dtype=torch.int64, device=mean.device))


def _count(rows: torch.Tensor) -> torch.Tensor:
    return torch.full((), len(rows), dtype=torch.int64, device=rows.device)
