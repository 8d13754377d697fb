"""Answers to learn from: what is read again, and that leaving the rest out changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rung.data.checkable import Problem, Problems
from rung.generation.options import SamplingOptions
from rung.nets.decoder import CausalLM
from rung.objectives.group_relative import GroupRelative, advantages
from rung.objectives.loss import Loss
from rung.tasks.chat.preparation import open_base
from rung.tasks.chat.reward_recipe import RewardSection
from rung.tasks.chat.rollouts import ProblemBatches, Rollouts, answer_rows, sampled

SEED, GROUP, TOKENS = 5, 4, 3


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_groups_that_all_earned_the_same_are_left_out_and_nothing_changes(base: Path, beta: float) -> None:
    opened = open_base(base, template="chatml")
    net = opened.network()
    problems = Problems([_Odd(f"say {number}", "odd" if number % 2 else "never right") for number in range(8)])
    wanted = RewardSection(answers=GROUP, max_tokens=TOKENS, ended=0.0, beta=beta)
    rollouts = Rollouts(opened, problems, wanted, SEED, "fp32", open_base(base, template="chatml").network())
    batch = ProblemBatches(len(problems), seed=0).batch(np.arange(8))
    found = rollouts(net, batch)
    assert int(found.count) == 8 * GROUP
    assert 0 < int(found.metrics["compared"]) <= 4 * GROUP

    asked = [problems.items[number] for number in batch["problem"].tolist() for _ in range(GROUP)]
    seeds = [SEED * 2**32 + draw * GROUP + number for draw in batch["draw"].tolist() for number in range(GROUP)]
    options = [SamplingOptions(max_tokens=TOKENS, seed=one, stop_tokens=(opened.end_of_turn,)) for one in seeds]
    prompts, written = sampled(net, opened, asked, options, precision="fp32")
    earned = torch.tensor([float(one.solved_by(said.text)) for one, said in zip(asked, written, strict=True)])
    rows = answer_rows(prompts, written, opened)
    everything = rows.collate(range(len(rows)))
    everything["advantages"] = advantages(earned.view(-1, GROUP), normalised=False).flatten()
    expected = GroupRelative(TOKENS)(net, everything)  # of a network that is its own reference
    assert found.metrics["solved"].item() == earned.sum().item()
    assert found.total.item() == pytest.approx(expected.total.item(), abs=1e-5)
    torch.testing.assert_close(_gradient(net, found), _gradient(net, expected), rtol=1e-3, atol=1e-6)


def _gradient(net: CausalLM, loss: Loss) -> torch.Tensor:
    net.zero_grad()
    loss.total.backward()  # type: ignore[no-untyped-call]
    found = net.lm_head.weight.grad
    assert found is not None
    assert bool(found.any())
    return found.clone()


class _Odd(Problem):
    """Solved by about half of what an untrained network says, or by nothing."""

    def solved_by(self, text: str) -> bool:
        return self.answer == "odd" and sum(map(ord, text)) % 2 == 1
