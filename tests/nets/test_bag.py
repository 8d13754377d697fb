"""The feed-forward network against its formula, and one batch learned by heart."""

from __future__ import annotations

import torch

from rung.nets.bag import BagClassifier
from rung.objectives.classification import Classification
from rung.training.row_optimizer import RowAdagrad


def bags() -> dict[str, torch.Tensor]:
    """Four bags of rows, the second one empty, the third with a row twice."""
    return {
        "input_ids": torch.tensor([3, 1, 4, 4, 0, 2]),
        "offsets": torch.tensor([0, 2, 2, 5]),
        "labels": torch.tensor([0, 1, 1, 2]),
    }


def net() -> BagClassifier:
    return BagClassifier(6, 8, 3, generator=torch.Generator().manual_seed(0))


def test_scores_are_the_mean_row_times_the_output_matrix() -> None:
    model, batch = net(), bags()
    torch.nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(1))
    rows = model.embed(batch["input_ids"])
    means = torch.stack([rows[:2].mean(0), torch.zeros(8), rows[2:5].mean(0), rows[5]])
    torch.testing.assert_close(model(batch), means @ model.classifier.weight.t())


def test_the_order_within_a_bag_and_the_other_bags_do_not_matter() -> None:
    model, batch = net(), bags()
    torch.nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(1))
    alone = model({"input_ids": torch.tensor([4, 0, 4]), "offsets": torch.tensor([0])})
    torch.testing.assert_close(alone[0], model(batch)[2])


def test_gradients_equal_those_of_torch_and_have_each_row_once() -> None:
    model, batch = net(), bags()
    torch.nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(1))
    Classification()(model, batch).total.backward()
    sparse = model.embeddings.weight.grad
    assert sparse is not None
    assert sparse.is_sparse
    assert sparse._indices().tolist() == [[0, 1, 2, 3, 4]]
    dense = model.embeddings.weight.detach().clone().requires_grad_()
    means = torch.nn.functional.embedding_bag(batch["input_ids"], dense, batch["offsets"], mode="mean")
    torch.nn.functional.cross_entropy(model.classifier(means), batch["labels"], reduction="sum").backward()
    torch.testing.assert_close(sparse.to_dense(), dense.grad)


def test_one_batch_can_be_learned_by_heart() -> None:
    batch = {"input_ids": torch.arange(4), "offsets": torch.arange(4), "labels": torch.tensor([0, 1, 1, 2])}
    for objective in (Classification(), Classification(loss="ova")):
        model = net()
        optimizer = RowAdagrad(model, 0.5)
        for _ in range(200):
            optimizer.zero_grad()
            objective(model, batch).total.backward()
            optimizer.clip_grad_norm(float("inf"))
            optimizer.step(1.0)
        with torch.no_grad():
            assert objective(model, batch).mean() < 0.05
