"""The decoder against transformers: same weights, same logits, same gradients, both ways through saved folders."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers

from rung.nets.decoder import CausalLM, DecoderConfig
from rung.nets.pretrained import load_net, save_net
from rung.nets.rope import RopeScaling

TINY = DecoderConfig(
    vocab_size=71,
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)

LLAMA = dataclasses.replace(TINY, model_type="llama")
LINEAR = RopeScaling("linear", 4.0)
# Contexts that lie within the 17 tokens of the texts below, so that the slow rotations are changed where it shows.
LLAMA3 = RopeScaling("llama3", 8.0, original_max_position_embeddings=16, low_freq_factor=1.0, high_freq_factor=4.0)
YARN = RopeScaling("yarn", 4.0, original_max_position_embeddings=16)
YARN_ALL_KEYS = RopeScaling(
    "yarn",
    4.0,
    original_max_position_embeddings=12,
    beta_fast=16.0,
    beta_slow=0.5,
    mscale=0.7,
    mscale_all_dim=0.9,
    truncate=False,
)
CONFIGS = {
    "qwen3": TINY,
    "qwen3-wide-heads-untied": dataclasses.replace(TINY, head_dim=12, tie_word_embeddings=False),
    "qwen3-one-kv-head-biases": dataclasses.replace(TINY, num_key_value_heads=1, attention_bias=True),
    "qwen3-no-groups": dataclasses.replace(TINY, num_key_value_heads=4, rope_theta=500_000.0, rms_norm_eps=1e-5),
    "llama": dataclasses.replace(TINY, model_type="llama"),
    "llama-untied-biases": dataclasses.replace(
        TINY, model_type="llama", tie_word_embeddings=False, attention_bias=True, num_key_value_heads=4
    ),
    "llama-odd-width": dataclasses.replace(TINY, model_type="llama", head_dim=6, num_hidden_layers=3),
    "llama-biases-everywhere": dataclasses.replace(LLAMA, attention_bias=True, mlp_bias=True),
    "llama-linear": dataclasses.replace(LLAMA, rope_scaling=LINEAR),
    "llama-dynamic": dataclasses.replace(LLAMA, rope_scaling=RopeScaling("dynamic", 2.0)),
    "llama-llama3": dataclasses.replace(LLAMA, rope_scaling=LLAMA3, rope_theta=100.0),
    "qwen3-yarn": dataclasses.replace(TINY, rope_scaling=YARN, rope_theta=100.0, head_dim=16),
    "llama-yarn-all-keys": dataclasses.replace(LLAMA, rope_scaling=YARN_ALL_KEYS, rope_theta=50.0, head_dim=16),
    "llama-yarn-attention-factor": dataclasses.replace(
        LLAMA, rope_scaling=dataclasses.replace(YARN, attention_factor=1.3)
    ),
    "mistral": dataclasses.replace(TINY, model_type="mistral", tie_word_embeddings=False),
    "mistral-window": dataclasses.replace(TINY, model_type="mistral", sliding_window=5),
    "qwen2": dataclasses.replace(TINY, model_type="qwen2"),
    "qwen2-untied-one-kv-head": dataclasses.replace(
        TINY, model_type="qwen2", tie_word_embeddings=False, num_key_value_heads=1
    ),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def net(request: pytest.FixtureRequest) -> CausalLM:
    """A network whose every parameter is random, so that no zero-initialised matrix hides a difference."""
    return randomised(CausalLM(request.param))


def randomised(net: CausalLM) -> CausalLM:
    generator = torch.Generator().manual_seed(3)
    for name, p in net.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        p.data = 1 + 0.3 * noise if name.endswith("norm.weight") else 0.2 * noise
    return net


def ids(rows: int = 2, time: int = 17) -> torch.Tensor:
    return torch.randint(0, TINY.vocab_size, (rows, time), generator=torch.Generator().manual_seed(5))


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_transformers_opens_our_folder_and_computes_the_same(net: CausalLM, tmp_path: Path) -> None:
    save_net(net, tmp_path)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert sum(p.numel() for p in theirs.parameters()) == net.config.num_parameters
    with torch.no_grad():
        assert_close(net(ids()), theirs(ids()).logits)


def test_we_open_their_folder_and_compute_the_same(net: CausalLM, tmp_path: Path) -> None:
    save_net(net, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_net(tmp_path / "theirs")
    for field in dataclasses.fields(DecoderConfig):
        if field.name not in {"bos_token_id", "eos_token_id", "pad_token_id"}:
            assert getattr(again.config, field.name) == getattr(net.config, field.name), field.name
    with torch.no_grad():
        assert_close(again(ids()), theirs(ids()).logits)


def test_gradients_equal_tensor_by_tensor(net: CausalLM, tmp_path: Path) -> None:
    save_net(net, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    target = torch.randn(2, 17, TINY.vocab_size, generator=torch.Generator().manual_seed(7))
    (net(ids()) * target).mean().backward()
    (theirs(ids()).logits * target).mean().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    assert expected.keys() == dict(net.named_parameters()).keys()
    for name, p in net.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_left_padding_equals_transformers(net: CausalLM, tmp_path: Path) -> None:
    save_net(net, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    mask = torch.ones(2, 17, dtype=torch.long)
    mask[0, :6] = 0
    with torch.no_grad():
        expected = theirs(ids(), attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        assert_close(net(ids(), mask)[mask.bool()], expected[mask.bool()])
