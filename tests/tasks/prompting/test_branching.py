"""Many prompts off one beginning: the same log-probabilities as reading every prompt whole, whatever the lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.gpt2 import GPT2LM, GPT2Config
from rung.tasks.prompting import branching
from rung.tasks.prompting.branching import BranchScorer

VOCABULARY = 50
GPT2_SHAPE = GPT2Config(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
)
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9)


def decoder() -> CausalLM:
    config = DecoderConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        eos_token_id=0,
    )
    return _shaken(CausalLM(config))


def gpt2() -> GPT2LM:
    return _shaken(GPT2LM(GPT2_SHAPE))


def _shaken(net: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return net.eval()


def whole(net: Any, prompt: list[int], continuation: list[int]) -> list[float]:
    """The prompt and the continuation in one pass, without a cache."""
    with torch.inference_mode():
        scores = net(torch.tensor([prompt + continuation])).double().log_softmax(-1)[0]
    return [float(scores[len(prompt) - 1 + place, token]) for place, token in enumerate(continuation)]


NETS = {"decoder": decoder(), "gpt2": gpt2()}


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=12)
@given(
    beginning=st.lists(st.integers(0, VOCABULARY - 1), max_size=12),
    questions=st.lists(TOKENS, min_size=1, max_size=7),
    continuations=st.lists(TOKENS, min_size=1, max_size=4),
    at_once=st.sampled_from([1, 20, 512]),
)
def test_scores_are_those_of_whole_prompts(
    name: str, beginning: list[int], questions: list[list[int]], continuations: list[list[int]], at_once: int
) -> None:
    net = NETS[name]
    prompts = [beginning + question for question in questions]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branching, "_TOKENS_AT_ONCE", at_once)
        found = BranchScorer(net).score(prompts, continuations)
    for prompt, scores in zip(prompts, found, strict=True):
        for continuation, ours in zip(continuations, scores, strict=True):
            np.testing.assert_allclose(ours, whole(net, prompt, continuation), atol=1e-4)


def test_a_kept_beginning_serves_the_next_questions() -> None:
    net, start = NETS["decoder"], [7, 8, 9, 10, 11, 12]
    scorer = BranchScorer(net)
    scorer.score([[*start, 1], [*start, 2, 3]], [[4, 5]])
    trunk = scorer._trunk
    (found,) = scorer.score([[*start, 20, 21]], [[4, 5]])
    assert scorer._trunk is trunk, "a single question would else be its own beginning"
    np.testing.assert_allclose(found[0], whole(net, [*start, 20, 21], [4, 5]), atol=1e-4)
    (other,) = scorer.score([[30, 31, 32]], [[4, 5]])
    assert scorer._trunk is not trunk
    np.testing.assert_allclose(other[0], whole(net, [30, 31, 32], [4, 5]), atol=1e-4)


def test_nothing_asked_is_nothing_found() -> None:
    assert BranchScorer(NETS["decoder"]).score([], [[1]]) == []
