"""The usual learning rate by the size of the network: what moves a small one breaks a large one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rung.tasks.tuning.method import TuningMethod

_LORA = 10.0  # LoRA learns at about ten times the rate (Schulman 2025, "LoRA without regret")


@dataclass(frozen=True)
class RateBySize:
    """A power law through two networks: (parameters, rate) of a `small` and of a `large` one, all of them tuned."""

    small: tuple[float, float]
    large: tuple[float, float]

    def rate(self, parameters: int, method: TuningMethod) -> float:
        """The rate for a network of so many parameters, tuned by `method`; to two digits."""
        (small, fast), (large, slow) = self.small, self.large
        power = math.log(slow / fast) / math.log(large / small)
        rate = fast * (parameters / small) ** power * (_LORA if method.kind == "lora" else 1)
        return float(f"{rate:.1e}")


PREFERENCES = RateBySize(small=(8e5, 5e-4), large=(8e9, 5e-7))
"""Of a model of our own, chosen on pairs held back (`bench/preferences.py --choose`); of Tülu 3 (arXiv 2411.15124)."""
REWARDS = RateBySize(small=(1.3e5, 3e-4), large=(7e9, 1e-6))
"""Of a model of our own, chosen on held-back sums (`bench/reward_tuning.py`); of DeepSeekMath (arXiv 2402.03300)."""
