"""The plan: what it decides, what it leaves alone, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rung.errors import DataError, PlanError
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.language_models import draw_language_model
from rung.recipe import Recipe
from rung.training.forecast import forecast_bits_per_byte, worth_of_text
from rung.training.plan import Machine, TextFacts, choose_vocab_size, make_plan
from rung.training.shapes import candidate_configs, memory_needed, net_values

TEXT = TextFacts(train_bytes=1_000_000, train_tokens=450_000, valid_tokens=20_000, vocab_size=512, eos_token_id=0)
OF_OTHER_FAMILIES = ("embedding_size", "backpropagate_through", "direct_connections", "order")
MACHINE = Machine(device="cpu", threads=2, memory=8 * 2**30, bf16=True, can_compile=False)


class Clock:
    """A machine of a given speed, which counts what it was asked to time."""

    def __init__(self, flops_per_second: float) -> None:
        self.flops_per_second = flops_per_second
        self.timed: list[DecoderConfig] = []

    def __call__(self, config: DecoderConfig, sequences: int, context: int) -> float:
        self.timed.append(config)
        return config.flops_per_token(context) * sequences * context / self.flops_per_second


def test_a_plan_has_no_gaps_and_fills_the_time() -> None:
    clock = Clock(2e11)
    plan = make_plan(Recipe.parse({"training": {"minutes": 3}}), TEXT, MACHINE, seconds=150, timer=clock)
    recipe = plan.recipe
    assert recipe.training.minutes is None
    for section in (recipe.net, recipe.training):
        gaps = {name for name, value in section if value is None}
        assert gaps <= {"minutes", "patience", "vital_signs_every", "parameters", *OF_OTHER_FAMILIES}
    seconds = plan.tokens * plan.config.flops_per_token(plan.config.max_position_embeddings) / 2e11
    assert seconds == pytest.approx(150, rel=0.02)
    assert plan.config in clock.timed
    assert len(clock.timed) == len(set(clock.timed))


@pytest.mark.parametrize(("steps", "period"), [(1, 10), (100, 10), (320, 20)])
def test_short_runs_are_not_validated_and_saved_at_every_step(steps: int, period: int) -> None:
    plan = make_plan(Recipe.parse({"training": {"steps": steps}}), TEXT, MACHINE, seconds=None, timer=None)
    assert plan.recipe.training.validate_every == period
    assert plan.recipe.training.checkpoint_every == period


def test_more_time_never_gives_a_smaller_network_or_a_worse_forecast() -> None:
    plans = [
        make_plan(Recipe.parse({"training": {"minutes": 1}}), TEXT, MACHINE, seconds=seconds, timer=Clock(2e11))
        for seconds in (20, 60, 180, 900, 3600)
    ]
    sizes = [plan.config.num_parameters for plan in plans]
    forecasts = [plan.predicted_bits_per_byte for plan in plans]
    assert sizes == sorted(sizes)
    assert forecasts == sorted(forecasts, reverse=True)


def test_what_the_recipe_gives_stands() -> None:
    given = {
        "net": {
            "hidden_size": 96,
            "num_hidden_layers": 3,
            "head_dim": 32,
            "dropout": 0.3,
            "max_position_embeddings": 64,
        },
        "training": {"minutes": 1, "batch_size": 6, "micro_batch_size": 3, "learning_rate": 0.5, "optimizer": "adamw"},
    }
    plan = make_plan(Recipe.parse(given), TEXT, MACHINE, seconds=30, timer=Clock(1e11))
    for section, values in given.items():
        for name, value in values.items():
            if name != "minutes":
                assert getattr(getattr(plan.recipe, section), name) == value
    assert plan.config.num_attention_heads == 3


def test_a_plan_by_steps_asks_no_clock_and_repeats() -> None:
    recipe = Recipe.parse({"training": {"steps": 300}})
    first, second = (make_plan(recipe, TEXT, MACHINE, seconds=None, timer=None) for _ in range(2))
    assert first == second
    assert first.recipe.training.steps == 300
    assert first.tokens_per_second is None


def test_a_resolved_recipe_plans_to_itself() -> None:
    first = make_plan(Recipe.parse({"training": {"minutes": 3}}), TEXT, MACHINE, seconds=150, timer=Clock(2e11))
    again = make_plan(first.recipe, TEXT, MACHINE, seconds=None, timer=None)
    assert again.recipe == first.recipe


def test_too_little_memory_names_the_knob() -> None:
    small = replace(MACHINE, memory=50_000_000)
    wide = Recipe.parse({"net": {"hidden_size": 512}, "training": {"steps": 100}})
    with pytest.raises(PlanError) as weights:
        make_plan(wide, TEXT, small, seconds=None, timer=None)
    assert "net.hidden_size" in (weights.value.hint or "")
    large = Recipe.parse({"net": {"hidden_size": 64}, "training": {"steps": 100, "micro_batch_size": 4096}})
    with pytest.raises(PlanError) as activations:
        make_plan(large, TEXT, small, seconds=None, timer=None)
    assert "training.micro_batch_size" in (activations.value.hint or "")


def test_too_little_time_and_too_little_text_are_refused() -> None:
    with pytest.raises(PlanError, match="training steps"):
        make_plan(Recipe.parse({"training": {"minutes": 1}}), TEXT, MACHINE, seconds=0.5, timer=Clock(1e8))
    tiny = replace(TEXT, train_bytes=200, train_tokens=90)
    with pytest.raises(DataError, match="less than one context"):
        make_plan(Recipe.parse({"training": {"steps": 100}}), tiny, MACHINE, seconds=None, timer=None)


def test_batches_are_shared_equally_by_the_ranks() -> None:
    machine = replace(MACHINE, ranks=3)
    plan = make_plan(Recipe.parse({"training": {"steps": 1000}}), TEXT, machine, seconds=None, timer=None)
    assert plan.recipe.training.batch_size is not None
    assert plan.recipe.training.micro_batch_size is not None
    share, rest = divmod(plan.recipe.training.batch_size, 3)
    assert rest == 0
    assert share % plan.recipe.training.micro_batch_size == 0


def test_every_candidate_can_be_built_and_is_reproduced_by_its_values() -> None:
    for config in candidate_configs(Recipe().net, vocab_size=512, context=64, eos_token_id=0)[:4]:
        net = CausalLM(config)
        assert sum(p.numel() for p in net.parameters()) == config.num_parameters
        fixed = Recipe.parse({"net": net_values(config)}).net
        assert candidate_configs(fixed, vocab_size=512, context=64, eos_token_id=0) == [config]
        assert memory_needed(config, micro_batch=2, bytes_per_value=4).weights >= 16 * config.num_parameters


def test_the_forecast_falls_with_size_and_text_and_repetition_counts_less() -> None:
    assert forecast_bits_per_byte(2_000_000, 1e6, 8e6) < forecast_bits_per_byte(1_000_000, 1e6, 8e6)
    assert forecast_bits_per_byte(1_000_000, 1e6, 8e6) < forecast_bits_per_byte(1_000_000, 1e6, 4e6)
    assert worth_of_text(1e6, 5e5) == 5e5
    assert 3.5e6 < worth_of_text(1e6, 4e6) < 4e6
    assert worth_of_text(1e6, 1e9) < 17e6


@pytest.mark.parametrize(
    ("megabytes", "size"), [(0.01, 512), (1, 512), (4, 1024), (75, 4096), (1000, 16384), (1e5, 32768)]
)
def test_vocabulary_grows_with_the_text(megabytes: float, size: int) -> None:
    assert choose_vocab_size(int(megabytes * 1e6)) == size


OTHER_FAMILIES = ["feedforward", "rnn", "lstm", "gru"]


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_plans_of_other_families_have_no_gaps_and_repeat_themselves(family: str) -> None:
    recipe = Recipe.parse({"net": {"family": family}, "training": {"minutes": 3}})
    slow, fast = (make_plan(recipe, TEXT, MACHINE, seconds=150, timer=Clock(rate)) for rate in (2e9, 2e11))
    assert slow.config.num_parameters < fast.config.num_parameters
    for made in (slow, fast):
        assert made.tokens == made.recipe.training.steps * made.recipe.training.batch_size * made.config.window  # type: ignore[operator]
        assert made.recipe.training.learning_rate is not None
        assert made.recipe.training.compile is False
        assert make_plan(made.recipe, TEXT, MACHINE, seconds=None, timer=None).recipe == made.recipe


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_candidates_of_other_families_can_be_built_and_are_reproduced(family: str) -> None:
    net = Recipe.parse({"net": {"family": family}}).net
    candidates = candidate_configs(net, vocab_size=512, context=7, eos_token_id=0)
    sizes = [config.num_parameters for config in candidates]
    assert sizes == sorted(set(sizes))
    for config in candidates[:3]:
        drawn = draw_language_model(config, seed=0)
        assert sum(p.numel() for p in drawn.parameters()) == config.num_parameters
        fixed = Recipe.parse({"net": {"family": family, **net_values(config)}}).net
        assert candidate_configs(fixed, vocab_size=512, context=7, eos_token_id=0) == [config]
        assert memory_needed(config, micro_batch=2, bytes_per_value=4).weights == 16 * config.num_parameters


def test_the_knobs_of_a_recurrent_network_are_its_own() -> None:
    recipe = Recipe.parse({"net": {"family": "lstm", "backpropagate_through": 100}, "training": {"steps": 100}})
    with pytest.raises(DataError, match="less than one context") as short:
        make_plan(recipe, replace(TEXT, train_bytes=200, train_tokens=90), MACHINE, seconds=None, timer=None)
    large = recipe.with_overrides({"training.micro_batch_size": 10**6})
    with pytest.raises(PlanError, match="GiB") as heavy:
        make_plan(large, TEXT, MACHINE, seconds=None, timer=None)
    for caught in (short, heavy):
        assert "net.backpropagate_through" in (caught.value.hint or "")
