"""The usual learning rates by size."""

from __future__ import annotations

import pytest

from rung.nets.lora import LoraConfig
from rung.tasks.chat.rates import PREFERENCES, REWARDS, RateBySize
from rung.tasks.tuning.method import TuningMethod


@pytest.mark.parametrize("law", [PREFERENCES, REWARDS])
def test_the_law_goes_through_both_networks_and_falls(law: RateBySize) -> None:
    full, lora = TuningMethod(), TuningMethod("lora", LoraConfig(r=4))
    for parameters, rate in (law.small, law.large):
        assert law.rate(int(parameters), full) == pytest.approx(rate, rel=0.05)
    rates = [law.rate(10**power, full) for power in range(5, 11)]
    assert rates == sorted(rates, reverse=True)
    assert law.rate(10**6, lora) == pytest.approx(10 * law.rate(10**6, full), rel=0.1)
