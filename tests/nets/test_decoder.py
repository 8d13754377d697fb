"""The decoder on its own: cache, padding, construction, overfitting, dtypes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.errors import GenerationError
from rung.nets.decoder import CausalLM, DecoderConfig, KeyValueCache

CONFIG = DecoderConfig(
    vocab_size=53,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=48,
)


def random_net(config: DecoderConfig = CONFIG) -> CausalLM:
    generator = torch.Generator().manual_seed(1)
    net = CausalLM(config)
    for p in net.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator) + (p.ndim == 1)
    return net.eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(1, 6), min_size=1, max_size=6), rows=st.integers(1, 3))
def test_a_cache_filled_in_any_steps_equals_one_pass(cuts: list[int], rows: int) -> None:
    net = random_net()
    input_ids = tokens(rows, sum(cuts))
    cache = KeyValueCache(CONFIG, rows, capacity=36)
    parts = [net(part, state=cache) for part in input_ids.split(cuts, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), net(input_ids), rtol=1e-5, atol=1e-5)
    assert cache.lengths.tolist() == [sum(cuts)] * rows


@torch.no_grad()
@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4), steps=st.integers(1, 4))
def test_rows_of_unequal_length_share_a_cache(lengths: list[int], steps: int) -> None:
    net = random_net()
    longest = max(lengths)
    input_ids = tokens(len(lengths), longest + steps)
    prompt_mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    cache = KeyValueCache(CONFIG, len(lengths), capacity=longest + steps)
    net(input_ids[:, :longest], prompt_mask, cache)
    for step in range(steps):
        scores = net(input_ids[:, longest + step][:, None], state=cache)
        for row, length in enumerate(lengths):
            alone = torch.cat((input_ids[row, :length], input_ids[row, longest : longest + step + 1]))[None]
            torch.testing.assert_close(scores[row, -1], net(alone)[0, -1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@settings(deadline=None, max_examples=25)
@given(left=st.integers(0, 5), right=st.integers(0, 5), pad=st.integers(0, CONFIG.vocab_size - 1))
def test_padding_changes_nothing(left: int, right: int, pad: int) -> None:
    net = random_net()
    input_ids = tokens(2, 7)
    padded = torch.nn.functional.pad(input_ids, (left, right), value=pad)
    mask = torch.nn.functional.pad(torch.ones_like(input_ids), (left, right))
    torch.testing.assert_close(net(padded, mask)[:, left : left + 7], net(input_ids), rtol=1e-5, atol=1e-5)


def test_a_full_cache_and_too_many_positions_are_refused() -> None:
    net = random_net()
    cache = KeyValueCache(CONFIG, 1, capacity=4)
    net(tokens(1, 4), state=cache)
    with pytest.raises(GenerationError, match="holds 4 tokens, 5"):
        net(tokens(1, 1), state=cache)
    with pytest.raises(GenerationError, match="48 positions"):
        KeyValueCache(CONFIG, 1, capacity=49)
    with pytest.raises(GenerationError, match="48 positions"):
        net(tokens(1, 49))


@pytest.mark.parametrize("tied", [True, False])
def test_construction_sets_every_parameter_and_counts_them(tied: bool) -> None:
    config = dataclasses.replace(CONFIG, tie_word_embeddings=tied)
    net = CausalLM(config, generator=torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in net.parameters()) == config.num_parameters
    assert (net.lm_head.weight is net.model.embed_tokens.weight) == tied
    for name, p in net.named_parameters():
        assert p.device.type == "cpu"
        assert bool(torch.isfinite(p).all()), name
    again = CausalLM(config, generator=torch.Generator().manual_seed(0))
    for (name, p), q in zip(net.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_matmul_parameters_are_the_weights_of_all_products() -> None:
    net = CausalLM(CONFIG)
    matrices = sum(p.numel() for name, p in net.named_parameters() if p.ndim == 2 and "embed" not in name)
    assert CONFIG.num_matmul_parameters == matrices + CONFIG.vocab_size * CONFIG.hidden_size
    assert CONFIG.flops_per_token(32) == 6 * CONFIG.num_matmul_parameters + 12 * 2 * 48 * 32 / 2


def test_a_tensor_without_a_value_is_refused() -> None:
    tensors = dict(CausalLM(CONFIG).named_parameters())
    del tensors["model.norm.weight"]
    with pytest.raises(RuntimeError, match=r"model\.norm\.weight"):
        CausalLM(CONFIG, tensors=tensors)


def test_one_batch_is_learned_by_heart() -> None:
    net = CausalLM(CONFIG, generator=torch.Generator().manual_seed(4))
    batch = tokens(4, 13)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_bfloat16_compute_stays_near_float32_and_masters_stay_float32() -> None:
    net = random_net()
    exact = net(tokens(2, 20))
    net.compute_dtype = torch.bfloat16
    rough = net(tokens(2, 20))
    assert rough.dtype == torch.bfloat16
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert (rough - exact).abs().mean() < 0.03 * exact.std()


def test_autocast_gives_what_its_dtype_as_compute_dtype_gives() -> None:
    net = random_net()
    gradients = []
    for automatic in (True, False):
        net.compute_dtype = torch.float32 if automatic else torch.bfloat16
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=automatic):
            scores = net(tokens(2, 20))
        scores.float().square().sum().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=lambda m, n=name: f"{n}: {m}")


def test_dropout_acts_in_training_only() -> None:
    net = CausalLM(CONFIG, dropout=0.5)
    batch = tokens(2, 9)
    net.train()
    assert not torch.equal(net(batch), net(batch))
    net.eval()
    assert torch.equal(net(batch), net(batch))
