"""Weights pulled back to where they began: by hand, and as the penalty of L2-SP under plain gradient descent."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rung.training.anchor import Anchor, Anchored
from rung.training.optimizers import build_optimizer


def nets() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    return net, copy.deepcopy(net)


def test_distance_is_relative_to_where_it_began() -> None:
    net, start = nets()
    anchor = Anchor(net, start)
    assert anchor.distance() == 0
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
    assert anchor.distance() == pytest.approx(0.1, rel=1e-5)
    anchor.pull(0.5)
    assert anchor.distance() == pytest.approx(0.05, rel=1e-5)
    anchor.pull(1.0)
    assert anchor.distance() == 0


def test_with_gradient_descent_it_is_the_penalty_in_the_loss() -> None:
    """SGD on loss + W/2 |w - w0|^2 (Li et al. 2018, equation 3) takes the same way, but for a second-order term."""
    (net, start), inputs = nets(), torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    other, rate, weight = copy.deepcopy(net), 1e-3, 5.0
    anchored = Anchored(
        build_optimizer(net, name="sgd", learning_rate=rate), Anchor(net, start), learning_rate=rate, weight=weight
    )
    plain = torch.optim.SGD(other.parameters(), lr=rate)
    for _ in range(200):
        anchored.zero_grad()
        net(inputs).square().mean().backward()
        anchored.step(1.0)
        plain.zero_grad()
        penalty = sum(((p - q) ** 2).sum() for p, q in zip(other.parameters(), start.parameters(), strict=True))
        (other(inputs).square().mean() + weight / 2 * penalty).backward()
        plain.step()
    moved = Anchor(other, start).distance()
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-3 * moved, rtol=0)


def test_the_schedule_lowers_the_pull_too_and_the_state_is_the_optimisers() -> None:
    net, start = nets()
    inner = build_optimizer(net, name="adamw", learning_rate=0.1)
    anchored = Anchored(inner, Anchor(net, start), learning_rate=0.1, weight=5.0)
    with torch.no_grad():
        net.weight += 1.0
    anchored.zero_grad()
    anchored.step(0.5)  # no gradient: nothing but the pull of 0.1 x 5 x 0.5
    torch.testing.assert_close(net.weight - start.weight, torch.full_like(net.weight, 0.75))
    net(torch.ones(1, 3)).sum().backward()
    anchored.step(1.0)
    assert anchored.state_tensors().keys() == inner.state_tensors().keys() != set()
