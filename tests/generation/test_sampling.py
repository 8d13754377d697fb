"""Filters equal transformers' own classes; draws follow the distribution and depend on nothing but their key."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rung.generation.options import SamplingOptions
from rung.generation.sampling import Sampler, draw, keep_top_k, keep_top_p, penalize_repetition, uniform

VOCABULARY = 400


def random_scores(seed: int, rows: int = 4, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread


def weights_of(options: SamplingOptions, scores: torch.Tensor) -> torch.Tensor:
    """The distribution that the sampler draws from."""
    sampler = Sampler([options] * len(scores), VOCABULARY)
    weights = sampler._weights(scores / options.temperature)
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("k", [1, 5, 400, 1000])
def test_top_k(k: int) -> None:
    scores = random_scores(k)
    expected = TopKLogitsWarper(top_k=k)(torch.zeros(4, 1, dtype=torch.long), scores.clone())
    assert torch.equal(keep_top_k(scores, [k] * 4), expected)


def test_top_k_keeps_ties_like_transformers() -> None:
    scores = random_scores(0).round()
    expected = TopKLogitsWarper(top_k=7)(torch.zeros(4, 1, dtype=torch.long), scores.clone())
    assert torch.equal(keep_top_k(scores, [7] * 4), expected)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_top_p(p: float, spread: float) -> None:
    scores = random_scores(1, spread=spread)
    kept = TopPLogitsWarper(top_p=p)(torch.zeros(4, 1, dtype=torch.long), scores.clone())
    expected = kept.softmax(-1)
    found = keep_top_p(scores.softmax(-1), torch.full((4, 1), p, dtype=torch.float64))
    torch.testing.assert_close(found / found.sum(-1, keepdim=True), expected)
    assert torch.equal(found > 0, expected > 0)


@given(
    st.integers(0, 10_000),
    st.floats(0.1, 3.0),
    st.one_of(st.none(), st.integers(1, 500)),
    st.one_of(st.none(), st.floats(0.05, 0.99)),
    st.one_of(st.none(), st.floats(0.0, 0.9)),
)
def test_all_filters_in_order(
    seed: int, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    scores = random_scores(seed, rows=1)
    ids = torch.zeros(1, 1, dtype=torch.long)
    expected = TemperatureLogitsWarper(temperature)(ids, scores.clone())
    if top_k is not None:
        expected = TopKLogitsWarper(top_k=top_k)(ids, expected)
    if top_p is not None:
        expected = TopPLogitsWarper(top_p=top_p)(ids, expected)
    if min_p is not None:
        expected = MinPLogitsWarper(min_p=min_p)(ids, expected)
    found = weights_of(SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p), scores)
    expected = expected.softmax(-1)
    # A token whose running sum meets p to the last bit may fall on either side: sums are float64 here, float32 there.
    differ = (found > 0) != (expected > 0)
    assert differ.sum() <= 1
    if not differ.any():
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_repetition_penalty(penalty: float) -> None:
    scores = random_scores(2)
    histories = torch.randint(0, VOCABULARY, (4, 30), generator=torch.Generator().manual_seed(3))
    expected = RepetitionPenaltyLogitsProcessor(penalty)(histories, scores.clone())
    found = penalize_repetition(scores, histories.tolist(), torch.full((4, 1), penalty))
    torch.testing.assert_close(found, expected)


def test_rows_may_have_other_options() -> None:
    scores = random_scores(4)
    options = [
        SamplingOptions(temperature=0),
        SamplingOptions(temperature=0.5, top_k=3, seed=1),
        SamplingOptions(top_p=0.4, repetition_penalty=1.5, seed=2),
        SamplingOptions(min_p=0.2, seed=3),
    ]
    histories = [[1, 2], [3], [5, 6, 7], [8]]
    together = Sampler(options, VOCABULARY).choose(scores, [9, 9, 9, 9], histories)
    for row, one in enumerate(options):
        alone = Sampler([one], VOCABULARY).choose(scores[row : row + 1], [9], [histories[row]])
        assert alone.token_ids == together.token_ids[row : row + 1]
        assert alone.logprobs == pytest.approx(together.logprobs[row : row + 1], abs=1e-6)
    assert together.token_ids[0] == scores[0].argmax()


def test_logprobs_are_those_of_the_untouched_scores() -> None:
    scores = random_scores(5)
    choices = Sampler([SamplingOptions(temperature=0.3, top_k=2)] * 4, VOCABULARY).choose(scores, [0, 1, 2, 3])
    expected = scores.log_softmax(-1)[torch.arange(4), choices.token_ids]
    assert choices.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_tokens_outside_the_tokenizer_are_never_chosen() -> None:
    scores = torch.zeros(1, 10)
    scores[0, 7] = 100.0
    assert Sampler([SamplingOptions(temperature=0)], 7).choose(scores, [0]).token_ids[0] < 7
    assert Sampler([SamplingOptions()], 7).choose(scores, [0]).token_ids[0] < 7


def test_draws_follow_the_distribution() -> None:
    scores = torch.tensor([[2.0, -30.0, 1.0, 0.0, -1.0, -2.0, 0.5, -0.5]])
    count = 20_000
    weights = scores.softmax(-1).expand(count, -1)
    drawn = draw(weights, torch.tensor([uniform(11, position) for position in range(count)], dtype=torch.float64))
    found = np.bincount(drawn.numpy(), minlength=8)
    assert found[1] == 0
    expected = scores.softmax(-1)[0].double().numpy() * count
    likely = [0, 2, 3, 4, 5, 6, 7]
    assert stats.chisquare(found[likely], expected[likely] * found.sum() / expected[likely].sum()).pvalue > 0.001


def test_draws_at_the_edges() -> None:
    weights = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).expand(3, -1)
    edges = torch.tensor([0.0, 0.5, 1 - 2.0**-48], dtype=torch.float64)
    assert draw(weights, edges).tolist() == [1, 3, 3]


def test_uniforms_are_uniform_along_seeds_and_along_positions() -> None:
    for draws in ([uniform(0, place) for place in range(5000)], [uniform(seed, 17) for seed in range(5000)]):
        assert stats.kstest(draws, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.05
    shifted = [uniform(seed, 100 - seed) for seed in range(100)]  # no seed is another one shifted
    assert len(set(shifted)) == 100


def test_the_global_seed_is_neither_used_nor_touched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = Sampler([SamplingOptions(seed=4)], VOCABULARY).choose(random_scores(6, rows=1), [3])
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(77)
    assert Sampler([SamplingOptions(seed=4)], VOCABULARY).choose(random_scores(6, rows=1), [3]) == first
