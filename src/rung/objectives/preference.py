"""Direct preference optimisation: the better of two answers is made likelier than the worse one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from rung.objectives.answers import answer_logprobs
from rung.objectives.loss import Loss


@dataclass(frozen=True)
class DirectPreference:
    """DPO (Rafailov et al. 2023, arXiv 2305.18290, equation 7), summed over pairs.

    A batch is that of `rung.data.preference_rows`: two rows a pair, its chosen and its rejected answer, and `reference`
    (pairs, 2), what the reference network gives the two, as `scores_of_pairs` does.

    The implicit reward of an answer is `beta` times how much likelier it is than under the reference. With
    `length_normalised` that is divided by its number of tokens, so that long answers are not favoured for their length
    (Tülu 3, arXiv 2411.15124, section 5.1.2); beta is then larger by about the length of answers.

    Metrics are sums over pairs: `reward_accuracy` (the chosen answer has the higher reward), `reward_margin`.
    """

    beta: float = 0.1
    length_normalised: bool = False

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss of `net` on `batch`, and the number of its pairs."""
        sums, tokens = scores_of_pairs(net, batch)
        margins = self.margins(sums - batch["reference"], tokens)
        won, apart = (margins.detach() > 0).sum(), margins.detach().sum()
        count = torch.tensor(len(margins), device=margins.device)
        return Loss(-F.logsigmoid(margins).sum(), count, {"reward_accuracy": won, "reward_margin": apart})

    def margins(self, gains: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Reward of each chosen answer less that of the rejected one (pairs,).

        `gains` (pairs, 2): ln P less that of the reference, of answers of so many `tokens` (pairs, 2).
        """
        rewards = self.beta * (gains / tokens if self.length_normalised else gains)
        return rewards[:, 0] - rewards[:, 1]


def scores_of_pairs(net: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """ln P of the chosen and the rejected answer of each pair, and their numbers of tokens; both (pairs, 2)."""
    sums, counts = answer_logprobs(net, batch, 1)
    return sums.view(-1, 2), counts.view(-1, 2)
