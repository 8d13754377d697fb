"""GPT-2 against transformers: same folder, same logits, same gradients, both ways; caches, padding, documents."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rung.errors import GenerationError, RunFolderError
from rung.nets.attention import KeyValueCache
from rung.nets.classifier_folder import load_body
from rung.nets.gpt2 import GPT2LM, GPT2Config, turned
from rung.nets.pretrained import load_net, read_config, save_net

TINY = GPT2Config(
    vocab_size=71,
    hidden_size=24,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=3,
    max_position_embeddings=40,
    eos_token_id=70,
    bos_token_id=70,
)
CONFIGS = {
    "gpt2": TINY,
    "untied-narrow-relu": dataclasses.replace(
        TINY, tie_word_embeddings=False, intermediate_size=40, activation_function="relu", layer_norm_epsilon=1e-3
    ),
    "exact-gelu": dataclasses.replace(TINY, activation_function="gelu", num_attention_heads=1, num_hidden_layers=3),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def net(request: pytest.FixtureRequest) -> GPT2LM:
    return random_net(request.param)


def random_net(config: GPT2Config = TINY) -> GPT2LM:
    generator = torch.Generator().manual_seed(3)
    net = GPT2LM(config, generator=generator)
    for name, p in net.named_parameters():
        p.data = 0.2 * torch.randn(p.shape, generator=generator) + (".ln_" in name and name.endswith("weight"))
    return net.eval()


def ids(rows: int = 2, time: int = 17) -> torch.Tensor:
    return torch.randint(0, TINY.vocab_size, (rows, time), generator=torch.Generator().manual_seed(5))


def theirs_of(folder: Path) -> Any:
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(net, transformers.GPT2LMHeadModel)
    return net.eval()


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_transformers_opens_our_folder_and_computes_the_same(net: GPT2LM, tmp_path: Path) -> None:
    save_net(net, tmp_path)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert sum(p.numel() for p in theirs.parameters()) == net.config.num_parameters
    assert theirs.generation_config.eos_token_id == 70
    with torch.no_grad():
        assert_close(net(ids()), theirs.eval()(ids()).logits)


def test_we_open_their_folder_and_compute_the_same(net: GPT2LM, tmp_path: Path) -> None:
    save_net(net, tmp_path / "ours")
    theirs = theirs_of(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_net(tmp_path / "theirs")
    assert again.config == net.config
    with torch.no_grad():
        assert_close(again(ids()), theirs(ids()).logits)


def test_gradients_equal_tensor_by_tensor(net: GPT2LM, tmp_path: Path) -> None:
    save_net(net, tmp_path)
    theirs = theirs_of(tmp_path)
    target = torch.randn(2, 17, TINY.vocab_size, generator=torch.Generator().manual_seed(7))
    (net(ids()) * target).mean().backward()
    (theirs(ids()).logits * target).mean().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    assert expected.keys() == dict(net.named_parameters()).keys()
    for name, p in net.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(turned(name, p.grad), expected[name], rtol=1e-4, atol=1e-6)


def test_left_padding_equals_transformers(net: GPT2LM, tmp_path: Path) -> None:
    save_net(net, tmp_path)
    theirs = theirs_of(tmp_path)
    mask = torch.ones(2, 17, dtype=torch.long)
    mask[0, :6] = 0
    with torch.no_grad():
        expected = theirs(ids(), attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        assert_close(net(ids(), mask)[mask.bool()], expected[mask.bool()])


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[17], [1] * 17, [5, 1, 1, 10]])
def test_a_cache_filled_in_steps_equals_one_pass(cuts: list[int], net: GPT2LM) -> None:
    cache = KeyValueCache(net.config, 2, capacity=20)
    parts = [net(part, state=cache) for part in ids().split(cuts, dim=1)]
    assert_close(torch.cat(parts, dim=1), net(ids()))


@torch.no_grad()
def test_packed_documents_give_the_logits_of_each_alone(net: GPT2LM) -> None:
    mask = torch.tensor([[1] * 5 + [2] * 8 + [3] * 3 + [0]])
    together = net(ids(1), mask)
    alone = [net(document) for document in ids(1)[:, :16].split([5, 8, 3], dim=1)]
    assert_close(together[:, :16], torch.cat(alone, dim=1))


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(GenerationError, match="40 positions"):
        random_net()(ids(1, 41))


def test_the_folder_of_openai_is_read(tmp_path: Path) -> None:
    """Its tensors lack the prefix, every layer has its causal mask, and the tied matrix may be there twice."""
    net = random_net()
    save_net(net, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 40, 40).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    tensors["lm_head.weight"] = tensors["wte.weight"].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("n_inner", "tie_word_embeddings", "dtype"):
        del config[key]
    config |= {"summary_type": "cls_index", "task_specific_params": {"text-generation": {"do_sample": True}}}
    (tmp_path / "config.json").write_text(json.dumps({**config, "attn_pdrop": 0.1, "n_ctx": 40}))
    body: Any = load_body(tmp_path, 3, dropout=0.0, pad_token_id=70).body
    with torch.no_grad():
        assert_close(load_net(tmp_path)(ids()), net(ids()))
        assert_close(body(body.embed(ids())).hidden, net.model(net.model.embed(ids())).hidden)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": None}, "lacks n_layer"),
        ({"n_head": 5}, "no multiple of 5 heads"),
        ({"n_embd": "wide"}, "hidden_size must be a whole number"),
        ({"activation_function": "swish"}, "activation_function 'swish'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon must be"),
        ({"n_heads": 3}, "did you mean 'n_head'"),
    ],
)
def test_what_is_not_implemented_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_net(random_net(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(RunFolderError, match=message) as caught:
        read_config(tmp_path)
    assert "config.json" in (caught.value.where or "")


def test_matmul_parameters_are_the_weights_of_all_products() -> None:
    net = random_net()
    matrices = sum(p.numel() for name, p in net.named_parameters() if p.ndim == 2 and "wte" not in name)
    positions = TINY.max_position_embeddings * TINY.hidden_size
    assert TINY.num_matmul_parameters == matrices - positions + TINY.vocab_size * TINY.hidden_size
    assert {(p.shape[1], p.shape[0]) for n, p in net.named_parameters() if p.ndim == 2 and "wpe" not in n} == set(
        TINY.matrix_shapes
    )


def test_drawn_networks_start_near_an_even_guess() -> None:
    net = GPT2LM(TINY, generator=torch.Generator().manual_seed(0))
    again = GPT2LM(TINY, generator=torch.Generator().manual_seed(0))
    for (name, p), q in zip(net.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q), name
    assert net(ids()).abs().max() < 1
