"""Ways of tuning: what is trained, at what rate, and when layers are thawed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from rung.errors import UsageError
from rung.nets.classifier import build_classifier
from rung.nets.decoder import CausalLM, DecoderConfig
from rung.nets.encoder_config import EncoderConfig
from rung.nets.gpt2 import GPT2Config
from rung.nets.lora import LoraConfig
from rung.nets.quantized import QuantizedLinear
from rung.tasks.tuning.method import TuningMethod, apply_method, depths_of, gradual_unfreezing, rate_of
from rung.training.optimizers import build_optimizer

DECODER = DecoderConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=16,
)
ENCODER = EncoderConfig(
    vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=16,
)  # fmt: skip


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return build_classifier(ENCODER, 3)


def trained(net: nn.Module) -> set[str]:
    return {name for name, parameter in net.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    "wrong",
    [
        {"lora": LoraConfig()},
        {"base_precision": "int8"},
        {"kind": "frozen", "layer_decay": 0.9},
        {"kind": "frozen", "gradual": True},
        {"kind": "lora", "gradual": True},
        {"layer_decay": 0.0},
        {"layer_decay": 1.5},
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TuningMethod(**wrong)


@pytest.mark.parametrize(
    "method",
    [
        TuningMethod(layer_decay=0.9, gradual=True),
        TuningMethod("frozen"),
        TuningMethod("lora", LoraConfig(r=3, target_modules=("query", "value"), use_dora=True), base_precision="int4"),
        TuningMethod("lora"),
    ],
)
def test_a_method_survives_json(method: TuningMethod) -> None:
    assert TuningMethod.from_json(json.loads(json.dumps(method.to_json()))) == method


def test_what_each_method_trains() -> None:
    net = classifier()
    everything = {name for name, _ in net.named_parameters()}
    heads = {name for name in everything if name.startswith(("head.", "pooling."))}
    apply_method(net, TuningMethod("frozen"), seed=0)
    assert trained(net) == heads
    apply_method(net, TuningMethod(), seed=0)
    assert trained(net) == everything
    apply_method(net, TuningMethod("lora", LoraConfig(target_modules=("query",))), seed=0)
    assert {name for name in trained(net) if ".lora_" not in name} == heads
    assert len(trained(net) - heads) == 2 * 3
    with pytest.raises(UsageError, match="no new head"):
        apply_method(CausalLM(DECODER), TuningMethod("frozen"), seed=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_how_the_base_is_stored(precision: Any) -> None:
    net = classifier()
    apply_method(net, TuningMethod("lora", base_precision=precision), seed=0)
    stored = net.get_submodule("body.encoder.layer.0.attention.self.query.base_layer")
    assert isinstance(stored, QuantizedLinear) == (precision in ("int8", "int4"))
    if precision in ("fp32", "bf16"):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        assert stored.weight.dtype == dtype
    assert net.get_parameter("head.weight").dtype == torch.float32
    scores = net({"input_ids": torch.arange(8)[None]})
    scores.sum().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_layers_learn_more_slowly_from_the_top_down() -> None:
    net = classifier()
    rate = rate_of(net, TuningMethod(layer_decay=0.5))
    assert rate("head.weight") == rate("pooling.dense.weight") == 1.0
    rates = [rate(f"body.encoder.layer.{number}.attention.self.query.weight") for number in (2, 1, 0)]
    assert rates == [0.5, 0.25, 0.125]
    for name in ("word_embeddings.weight", "LayerNorm.weight"):
        assert rate(f"body.embeddings.{name}") == 0.0625
    assert rate_of(net, TuningMethod())("body.embeddings.LayerNorm.weight") == 1.0
    decoder = depths_of(CausalLM(DECODER))
    assert (decoder["model.embed_tokens.weight"], decoder["model.layers.2.mlp.up_proj.weight"]) == (0, 3)
    assert decoder["model.norm.weight"] == 4
    gpt2 = depths_of(build_classifier(GPT2Config(50, 32, 32, 3, 2, 16), 3))
    assert gpt2["body.wte.weight"] == gpt2["body.wpe.weight"] == 0
    assert [gpt2[f"body.h.{number}.attn.c_attn.weight"] for number in range(3)] == [1, 2, 3]
    assert gpt2["body.ln_f.weight"] == gpt2["head.weight"] == 4


def test_the_optimiser_moves_each_layer_at_its_rate_and_frozen_ones_not_at_all() -> None:
    net = classifier()
    frozen = net.get_parameter("body.embeddings.LayerNorm.bias").requires_grad_(False)
    rate = rate_of(net, TuningMethod(layer_decay=0.5))
    optimizer = build_optimizer(net, name="sgd", learning_rate=0.1, rate_of=rate)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1.0)
    for name, parameter in net.named_parameters():
        moved = 0.0 if parameter is frozen else 0.1 * rate(name)
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, moved))


def test_layers_thaw_by_epochs_whatever_was_asked_before() -> None:
    net = classifier()
    thaw = gradual_unfreezing(net, steps_per_epoch=10, epochs=3.0)

    def lowest(step: int) -> int:
        thaw(step)
        depths = depths_of(net)
        assert {depths[name] for name in trained(net)} == set(range(min(depths[name] for name in trained(net)), 5))
        return min(depths[name] for name in trained(net))

    assert [lowest(step) for step in (0, 9, 10, 19, 20, 29, 1000)] == [4, 4, 2, 2, 0, 0, 0]
    assert lowest(5) == 4  # a run that is resumed at an earlier step
    with pytest.raises(UsageError, match="epochs"):
        gradual_unfreezing(net, steps_per_epoch=10, epochs=1.9)


def test_state_of_layers_that_were_never_moved_is_not_missed() -> None:
    net = classifier()
    optimizer = build_optimizer(net, name="adamw", learning_rate=0.1)
    net.get_parameter("head.weight").grad = torch.ones(3, 32)
    optimizer.step(1.0)
    state = optimizer.state_tensors()
    assert {name.rpartition("/")[0] for name in state} == {"head.weight"}
    again = build_optimizer(net, name="adamw", learning_rate=0.1)
    again.load_state_tensors(state)
    assert again.state_tensors().keys() == state.keys()
