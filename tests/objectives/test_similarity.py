"""The losses of sentence encoders against sentence-transformers', and what they leave out of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss

from rung.objectives.similarity import CoSent, CosineRegression, MultipleNegatives

ROWS, WIDTH = 7, 5


class Table:
    """A "network" whose vectors are rows of a table, so that a loss is all that is compared."""

    def __init__(self, columns: int) -> None:
        generator = torch.Generator().manual_seed(3)
        self.vectors = torch.randn(ROWS, columns, WIDTH, generator=generator, requires_grad=True)

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        assert "mask" not in batch or batch["mask"].any(0).all()
        return self.vectors.flatten(0, 1)[batch["input_ids"][:, 0]]

    def batch(self, **further: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each text is its number, repeated up to its length."""
        shape = (ROWS, self.vectors.shape[1])
        numbers = torch.arange(shape[0] * shape[1]).view(*shape, 1).expand(*shape, 6)
        mask = torch.arange(6) < 1 + numbers * 5 % 6
        return {"input_ids": numbers.where(mask, 0), "mask": mask, **further}

    def columns(self) -> list[torch.Tensor]:
        return list(self.vectors.unbind(1))


def theirs(loss: type[Any]) -> Any:
    return loss(torch.nn.Identity())


def distinct(columns: int) -> torch.Tensor:
    return torch.arange(ROWS * columns).view(ROWS, columns)


def test_cosent_is_theirs_with_its_gradient() -> None:
    scores = torch.tensor([0.0, 1.0, 1.0, 2.5, 4.0, 5.0, 0.0])
    net = Table(2)
    loss = CoSent()(net, net.batch(scores=scores))
    loss.mean().backward()  # type: ignore[no-untyped-call]
    ours, net.vectors.grad = net.vectors.grad, None
    expected = theirs(CoSENTLoss).compute_loss_from_embeddings(net.columns(), scores)
    expected.backward()
    torch.testing.assert_close(loss.mean(), expected)
    torch.testing.assert_close(ours, net.vectors.grad, rtol=1e-4, atol=1e-6)


def test_equal_scores_leave_cosent_nothing_to_rank() -> None:
    net = Table(2)
    assert CoSent()(net, net.batch(scores=torch.ones(ROWS))).total.item() == 0.0


@pytest.mark.parametrize("columns", [2, 3])
def test_ranking_is_theirs(columns: int) -> None:
    net = Table(columns)
    loss = MultipleNegatives()(net, net.batch(texts=distinct(columns)))
    expected = theirs(MultipleNegativesRankingLoss).compute_loss_from_embeddings(net.columns(), torch.zeros(ROWS))
    torch.testing.assert_close(loss.mean(), expected)
    anchors, candidates = F.normalize(net.vectors[:, 0], dim=1), F.normalize(net.vectors[:, 1], dim=1)
    if columns == 2:
        found = (anchors @ candidates.T).argmax(1) == torch.arange(ROWS)
        assert loss.metrics["correct"] == found.sum()


@pytest.mark.parametrize("shared", [0, 1], ids=["the same anchor", "the same positive"])
def test_rows_with_a_text_in_common_are_no_negatives_of_each_other(shared: int) -> None:
    """As if the other row's positive were infinitely far away."""
    net, texts = Table(2), distinct(2)
    texts[4, shared] = texts[1, shared]
    scores = 20 * F.normalize(net.vectors[:, 0], dim=1) @ F.normalize(net.vectors[:, 1], dim=1).T
    scores[1, 4] = scores[4, 1] = -torch.inf
    expected = F.cross_entropy(scores, torch.arange(ROWS), reduction="sum")
    torch.testing.assert_close(MultipleNegatives()(net, net.batch(texts=texts)).total, expected)


def test_regression_adds_up_over_rows() -> None:
    net, scores = Table(2), torch.linspace(1, 5, ROWS)
    first, second = net.columns()
    expected = ((F.cosine_similarity(first, second) - (scores - 1) / 4) ** 2).sum()
    loss = CosineRegression(1.0, 5.0)(net, net.batch(scores=scores))
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == ROWS
