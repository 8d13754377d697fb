"""Group-relative policy optimisation: of several answers to one prompt, those with more reward are made likelier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rung.objectives.answers import answer_token_logprobs
from rung.objectives.loss import Loss


@dataclass(frozen=True)
class GroupRelative:
    """GRPO (Shao et al. 2024, arXiv 2402.03300, equation 3), one step of gradient for each sample of answers.

    The answers were just sampled from the network itself, so the ratio of new to old probability is 1 and its clipping
    has nothing to do; what is left is the policy gradient: each token's log-probability times its answer's advantage.

    A batch is that of `rung.data.packing`, with `advantages` (rows,) and, where `beta` is above 0, `reference`
    (rows, time), the reference's log-probabilities of the labels. Advantages are rewards less their group's mean, over
    their standard deviation where `normalised`; that weighs prompts the most that are nearly always or nearly never
    solved (Liu et al. 2025, arXiv 2503.20783, section 3.1). An answer's sum over tokens is divided by `max_tokens`, not
    by its length, which would make long wrong answers cheap (ibid.).

    `beta` weighs the distance from the reference: half the squared difference of each token's log-probability. On own
    samples that has the gradient of the Kullback-Leibler divergence (of each token given those before it), and GRPO's
    estimator, exp(d) - d - 1 with d = ln(reference / policy), has that of the divergence the other way round (Tang and
    Munos 2025, arXiv 2506.09477). The latter's value is the better estimate, and is the metric.

    Metrics are sums over answers: `kl`, where `beta` is above 0.
    """

    max_tokens: int
    beta: float = 0.0

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss of `net` on `batch`, and the number of its answers."""
        logprobs, row, time = answer_token_logprobs(net, batch)
        total = -(batch["advantages"][row] * logprobs).sum()
        metrics = {}
        if self.beta:
            gap = batch["reference"][row, time] - logprobs
            total = total + self.beta * (gap**2).sum() / 2
            apart = gap.detach()
            metrics["kl"] = (apart.exp() - apart - 1).sum()
        count = torch.tensor(len(batch["labels"]), device=logprobs.device)
        return Loss(total / self.max_tokens, count, metrics)


def advantages(rewards: torch.Tensor, *, normalised: bool) -> torch.Tensor:
    """Rewards (prompts, answers) less the mean of their prompt's, over its standard deviation where `normalised`."""
    apart = rewards - rewards.mean(1, keepdim=True)
    return apart / (rewards.std(1, keepdim=True) + 1e-4) if normalised else apart
