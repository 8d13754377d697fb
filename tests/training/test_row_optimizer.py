"""Adagrad on rows against torch's own on everything."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rung.errors import RunFolderError
from rung.training.row_optimizer import RowAdagrad


class Toy(nn.Module):
    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = nn.EmbeddingBag(7, 4, sparse=sparse)
        self.out = nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.rows(ids))
        return result


BATCHES = [torch.tensor([[0, 3, 3], [5, 0, 1]]), torch.tensor([[1, 1, 2], [6, 3, 0]]), torch.tensor([[4, 4, 4]])]


def loss(net: Toy, ids: torch.Tensor) -> torch.Tensor:
    return net(ids).square().sum()


@pytest.mark.parametrize("sparse", [True, False])
def test_steps_equal_torch(sparse: bool) -> None:
    ours, theirs = Toy(sparse=sparse), Toy(sparse=False)
    mine, reference = RowAdagrad(ours, 0.1), torch.optim.Adagrad(theirs.parameters(), lr=0.1)
    for ids in BATCHES * 3:
        mine.zero_grad()
        loss(ours, ids).backward()
        mine.clip_grad_norm(float("inf"))
        mine.step(1.0)
        reference.zero_grad()
        loss(theirs, ids).backward()
        reference.step()
    torch.testing.assert_close(dict(ours.named_parameters()), dict(theirs.named_parameters()))


def test_clipping_scales_to_the_norm_of_the_whole_gradient() -> None:
    net, dense = Toy(sparse=True), Toy(sparse=False)
    optimizer = RowAdagrad(net, 0.1)
    loss(net, BATCHES[0]).backward()
    loss(dense, BATCHES[0]).backward()
    expected = torch.nn.utils.clip_grad_norm_(dense.parameters(), 0.5)
    torch.testing.assert_close(optimizer.clip_grad_norm(0.5), expected)
    for p, q in zip(net.parameters(), dense.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad.to_dense(), q.grad)


def test_training_goes_on_from_stored_state_bit_for_bit() -> None:
    nets = [Toy(sparse=True), Toy(sparse=True)]
    optimizers = [RowAdagrad(net, 0.1) for net in nets]

    def step(which: int, ids: torch.Tensor) -> None:
        optimizers[which].zero_grad()
        loss(nets[which], ids).backward()
        optimizers[which].clip_grad_norm(1.0)
        optimizers[which].step(0.5)

    step(0, BATCHES[0])
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers[1].load_state_tensors({name: t.clone() for name, t in optimizers[0].state_tensors().items()})
    for ids in BATCHES:
        step(0, ids)
        step(1, ids)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_state_of_another_network_is_refused() -> None:
    optimizer = RowAdagrad(Toy(sparse=True), 0.1)
    state = optimizer.state_tensors()
    with pytest.raises(RunFolderError, match="not of this network"):
        optimizer.load_state_tensors({name: value for name, value in state.items() if "rows" in name})
    with pytest.raises(RunFolderError, match="not of this network"):
        optimizer.load_state_tensors({**state, "out.bias/sum": torch.zeros(9)})
