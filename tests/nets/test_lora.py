"""LoRA and DoRA layers: gradients, effective weights, merging, several adapters, quantised bases."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rung.errors import RecipeError, TrainingError, UsageError
from rung.generation.decoding import FusedDecoder
from rung.nets.decoder import CausalLM, DecoderConfig
from rung.nets.layers import Linear
from rung.nets.lora import (
    LoraConfig,
    LoraLinear,
    adapters_of,
    add_lora,
    lora_layers,
    merge_lora,
    set_adapter,
    unmerge_lora,
)
from rung.nets.quantized import NF4, QuantizedLinear, quantize_layers, restore_layers
from rung.objectives.next_token import NextToken

TINY = DecoderConfig(
    vocab_size=71,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)
IDS = torch.randint(0, 71, (2, 11), generator=torch.Generator().manual_seed(1))


def decoder() -> CausalLM:
    net = CausalLM(TINY, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        if parameter.ndim == 2:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return net.requires_grad_(False)


def adapted(config: LoraConfig, *, name: str = "default", net: CausalLM | None = None, seed: int = 2) -> CausalLM:
    """A decoder with an adapter whose B is not zero."""
    net = net or decoder()
    add_lora(net, config, generator=torch.Generator().manual_seed(seed), name=name)
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(net).values():
        if name in layer.lora_B:
            layer.lora_B[name].data = 0.1 * torch.randn(layer.lora_B[name].shape, generator=generator)
    return net.eval()


CONFIGS = [
    LoraConfig(r=3),
    LoraConfig(r=2, lora_alpha=5.0, use_rslora=True, target_modules=("q_proj", "mlp.down_proj")),
    LoraConfig(r=4, use_dora=True),
]


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_plain_autograd(dora: bool, bias: bool) -> None:
    torch.manual_seed(0)
    base = Linear(12, 7, bias=bias)
    layer = LoraLinear(base)
    layer.add("a", LoraConfig(r=3, lora_alpha=4.0, use_dora=dora), torch.Generator().manual_seed(1))
    layer.active = "a"
    layer.lora_B["a"].data.normal_()
    x = torch.randn(2, 5, 12, requires_grad=True)
    up = torch.randn(2, 5, 7)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    out = layer(x)
    ours = torch.autograd.grad(out, [x, *parameters], up)
    expected = F.linear(x, layer.weight, base.bias)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    theirs = torch.autograd.grad(expected, [x, *parameters], up)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert base.weight.grad is None


@pytest.mark.parametrize("config", CONFIGS)
def test_merging_changes_nothing_and_can_be_undone(config: LoraConfig) -> None:
    net = adapted(config)
    before = net(IDS)
    layers = merge_lora(net)
    assert not lora_layers(net)
    assert (net(IDS) - before).abs().max() < 1e-5
    unmerge_lora(net, layers)
    assert torch.equal(net(IDS), before)


def test_a_merge_that_would_change_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = adapted(LoraConfig(r=2))
    right = LoraLinear.weight.fget
    assert right is not None
    monkeypatch.setattr(LoraLinear, "weight", property(lambda layer: 1.001 * right(layer)))
    with pytest.raises(TrainingError, match="answers differently"):
        merge_lora(net)
    assert lora_layers(net)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_engine_reads_effective_weights(config: LoraConfig) -> None:
    net = adapted(config)
    engine = FusedDecoder(net, "fp32", invariant=False)
    engine.open(2, 16)
    scores = engine.prefill(IDS.tolist(), 0)
    torch.testing.assert_close(scores, net(IDS)[:, -1], atol=1e-4, rtol=1e-4)


def test_several_adapters_share_one_base() -> None:
    net = decoder()
    plain = net(IDS)
    one = adapted(LoraConfig(r=2), name="one", net=net)(IDS)
    two = adapted(LoraConfig(r=3, target_modules=("q_proj",)), name="two", net=net, seed=7)(IDS)
    assert adapters_of(net) == ("one", "two")
    assert {name.split(".")[-1] for name, p in net.named_parameters() if p.requires_grad} == {"two"}
    set_adapter(net, "one")
    assert torch.equal(net(IDS), one)
    assert not torch.equal(one, two)
    set_adapter(net, None)
    assert torch.equal(net(IDS), plain)
    assert not any(p.requires_grad for p in net.parameters())
    with pytest.raises(UsageError, match="no adapter named 'three'"):
        set_adapter(net, "three")
    with pytest.raises(UsageError, match="already"):
        add_lora(net, LoraConfig(), generator=None, name="one")
    with pytest.raises(UsageError, match="cannot name"):
        add_lora(net, LoraConfig(), generator=None, name="a.b")


def test_a_new_adapter_changes_nothing_and_the_same_seed_draws_the_same() -> None:
    net = decoder()
    before = net(IDS)
    add_lora(net, LoraConfig(r=2), generator=torch.Generator().manual_seed(3))
    assert torch.equal(net(IDS), before)
    other = decoder()
    add_lora(other, LoraConfig(r=2), generator=torch.Generator().manual_seed(3))
    for first, second in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def test_targets_that_match_nothing_name_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"called c_attn") as caught:
        add_lora(decoder(), LoraConfig(target_modules=("q_proj", "c_attn")), generator=None)
    assert "down_proj, gate_proj, k_proj" in str(caught.value)
    with pytest.raises(UsageError, match="called nothing"):
        add_lora(decoder(), LoraConfig(target_modules=()), generator=None)
    with pytest.raises(UsageError, match="embedding matrix"):
        add_lora(decoder(), LoraConfig(target_modules=("lm_head",)), generator=None)
    with pytest.raises(UsageError, match="has no linear layer"):
        add_lora(nn.Sequential(nn.LSTM(3, 3)), LoraConfig(), generator=None)


@pytest.mark.parametrize(
    "wrong",
    [{"r": 0}, {"lora_alpha": 0.0}, {"lora_alpha": float("nan")}, {"lora_dropout": 1.0}, {"target_modules": "q_proj"}],
)
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        LoraConfig(**wrong)  # type: ignore[arg-type]


def test_all_linear_may_be_given_in_a_list() -> None:
    assert LoraConfig(target_modules=("all-linear",)) == LoraConfig()


def test_dropout_acts_on_the_adapter_while_training_only() -> None:
    net = adapted(LoraConfig(r=2, lora_dropout=0.5))
    calm = net(IDS)
    net.train()
    torch.manual_seed(0)
    first = net(IDS)
    torch.manual_seed(0)
    assert torch.equal(net(IDS), first)
    assert not torch.equal(first, calm)


def test_one_batch_is_learned_with_the_base_untouched() -> None:
    net = adapted(LoraConfig(r=8, lora_alpha=32.0)).train()
    base = {name: p.clone() for name, p in net.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.01)
    batch = {"input_ids": IDS[:, :-1], "labels": IDS[:, 1:]}
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = NextToken()(net, batch)
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.total.detach() / loss.count))
    assert losses[-1] < 0.2 * losses[0]
    for name, parameter in net.named_parameters():
        assert name not in base or torch.equal(parameter, base[name])


# --- bases of fewer bits


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**31))
def test_quantised_matrices_are_near_and_stable(rows: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layer = Linear(32 * groups, rows, bias=False)
    layer.weight.data = torch.randn(rows, 32 * groups, generator=generator)
    eight, four = QuantizedLinear(layer, "int8"), QuantizedLinear(layer, "int4")
    largest = layer.weight.abs().amax(dim=1, keepdim=True)
    assert ((eight.weight - layer.weight).abs() <= largest / 254 + 1e-6).all()
    widest_gap = max(b - a for a, b in pairwise(NF4))
    by_group = layer.weight.view(rows, groups, 32)
    error = (four.weight.view_as(by_group) - by_group).abs()
    assert (error <= by_group.abs().amax(dim=2, keepdim=True) * widest_gap / 2 + 1e-6).all()
    for quantised in (eight, four):
        again = Linear(32 * groups, rows, bias=False)
        again.weight.data = quantised.weight
        torch.testing.assert_close(QuantizedLinear(again, quantised.precision).weight, quantised.weight)


def test_a_matrix_of_zeros_and_groups_that_do_not_fit() -> None:
    layer = Linear(32, 2, bias=False)
    layer.weight.data.zero_()
    assert not QuantizedLinear(layer, "int8").weight.any()
    assert not QuantizedLinear(layer, "int4").weight.any()
    with pytest.raises(UsageError, match="groups of 32"):
        QuantizedLinear(Linear(24, 2), "int4")


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantised_base_computes_with_its_matrix_and_passes_gradients(precision: str) -> None:
    torch.manual_seed(0)
    plain = Linear(64, 5)
    layer = QuantizedLinear(plain, precision)  # type: ignore[arg-type]
    x = torch.randn(3, 64, requires_grad=True)
    expected = F.linear(x, layer.weight, plain.bias)
    torch.testing.assert_close(layer(x), expected)
    up = torch.randn(3, 5)
    torch.testing.assert_close(torch.autograd.grad(layer(x), x, up), torch.autograd.grad(expected, x, up))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_adapters_on_a_quantised_base_merge_into_what_they_computed(precision: str) -> None:
    net = decoder()
    names = quantize_layers(net, precision, kept=("lm_head",))  # type: ignore[arg-type]
    assert len(names) == 14
    adapted(LoraConfig(r=2, target_modules=("q_proj", "v_proj")), net=net)
    before = net(IDS)
    merge_lora(net)
    restore_layers(net)
    assert not any(isinstance(module, QuantizedLinear | LoraLinear) for module in net.modules())
    assert (net(IDS) - before).abs().max() < 1e-5
