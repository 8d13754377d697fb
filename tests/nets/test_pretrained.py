"""Folders: equal after saving and loading, and every kind of damage refused with the tensor or key that is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rung.errors import RunFolderError
from rung.nets.decoder import CausalLM, DecoderConfig
from rung.nets.pretrained import load_net, read_config, save_net

CONFIG = DecoderConfig(
    vocab_size=23,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    max_position_embeddings=32,
    bos_token_id=0,
    eos_token_id=(0, 5),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_net(CausalLM(CONFIG), tmp_path)
    return tmp_path


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, value in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if value is not None:
            tensors[name.replace("__", ".")] = value
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("tied", [True, False])
def test_loading_gives_back_what_was_saved(tied: bool, tmp_path: Path) -> None:
    net = CausalLM(dataclasses.replace(CONFIG, tie_word_embeddings=tied))
    save_net(net, tmp_path)
    again = load_net(tmp_path)
    assert again.config == net.config
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) != tied
    for (name, p), q in zip(net.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert q.requires_grad


def test_weights_can_be_stored_and_held_in_bfloat16(tmp_path: Path) -> None:
    net = CausalLM(CONFIG)
    save_net(net, tmp_path, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    half = load_net(tmp_path, dtype=torch.bfloat16)
    assert half.compute_dtype == torch.bfloat16
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    full = load_net(tmp_path)
    assert full.compute_dtype == torch.float32
    assert torch.equal(full.model.embed_tokens.weight, net.model.embed_tokens.weight.bfloat16().float())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "disagree"),
        ({"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0]}}, "rope_type 'longrope'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "lacks low_freq_factor, high_freq_factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "two"}}, "factor of rope_type 'linear' cannot be 'two'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "fast": 1}}, "not supported: fast"),
        ({"rope_parameters": [1]}, "must be an object"),
        ({"mlp_bias": True}, "mlp_bias is not supported for 'qwen3'"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window must be"),
        ({"rope_theta": 5e5}, "disagree"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "sliding_attention"),
        ({"num_key_value_headz": 3}, "did you mean 'num_key_value_heads'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": "absent"}, "lacks hidden_size"),
        ({"hidden_size": -4}, "hidden_size must be"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps must be"),
        ({"num_key_value_heads": 4}, "not a multiple"),
        ({"head_dim": 7}, "even"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
    ],
)
def test_what_is_not_implemented_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(RunFolderError, match=message) as caught:
        read_config(folder)
    assert caught.value.where is not None
    assert "config.json" in caught.value.where


def test_older_spellings_and_defaults_are_read(folder: Path) -> None:
    edit_config(folder, rope_parameters="absent", dtype="absent", rope_theta=25_000)
    assert read_config(folder).rope_theta == 25_000.0
    edit_config(folder, model_type="llama", num_key_value_heads="absent", head_dim="absent", rope_theta="absent")
    llama = read_config(folder)
    assert (llama.num_key_value_heads, llama.head_dim, llama.rope_theta) == (2, 8, 10_000.0)


def test_all_tokens_that_end_a_text_are_known(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [3, 4], "pad_token_id": 7, "temperature": 0.7, "bos_token_id": None}))
    config = read_config(folder)
    assert (config.eos_token_id, config.pad_token_id, config.bos_token_id) == ((3, 4), 7, 0)
    path.write_text("{")
    with pytest.raises(RunFolderError, match=r"cannot read generation_config\.json"):
        read_config(folder)


# What stands in the files of the models named, beside the keys that Rung writes itself.
_REAL = {
    "Llama-3.2-1B-Instruct": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 22,
        "eos_token_id": [20, 21, 22],
        "mlp_bias": False,
        "pretraining_tp": 1,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0",
        "use_cache": True,
    },
    "Mistral-7B-v0.1": {
        "model_type": "mistral",
        "sliding_window": 4096,
        "rope_theta": 10000.0,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    },
    "Qwen2.5-0.5B-Instruct": {
        "model_type": "qwen2",
        "attention_dropout": 0.0,
        "max_window_layers": 21,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_mrope": False,
        "use_sliding_window": False,
    },
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "attention_bias": False,
        "max_window_layers": 28,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "SmolLM2-135M-Instruct": {
        "model_type": "llama",
        "is_llama_config": True,
        "pad_token_id": 2,
        "pretraining_tp": 1,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    },
}


@pytest.mark.parametrize("values", _REAL.values(), ids=_REAL.keys())
def test_the_keys_of_real_folders_are_read(values: dict[str, Any], folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    edit_config(folder, rope_parameters="absent", rope_theta="absent")
    edit_config(folder, **values)
    config = read_config(folder)
    assert config.rope_theta == values["rope_theta"]
    scaling = values.get("rope_scaling")
    assert (config.rope_scaling.to_hf() if config.rope_scaling else None) == scaling
    assert config.sliding_window == (4096 if values["model_type"] == "mistral" else None)
    assert DecoderConfig.from_hf(config.to_hf()) == config


def test_tensors_that_old_versions_stored_are_left_behind(folder: Path) -> None:
    edit_weights(folder, model__layers__1__self_attn__rotary_emb__inv_freq=torch.ones(4))
    assert not any("inv_freq" in name for name in load_net(folder).state_dict())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model__norm__weight", None, r"lacks model\.norm\.weight"),
        ("model__extra__weight", torch.zeros(2), r"unknown model\.extra\.weight"),
        ("model__norm__weight", torch.zeros(3), r"model\.norm\.weight has shape \[3\], config\.json asks for \[16\]"),
        ("model__norm__weight", torch.zeros(16, dtype=torch.int64), r"model\.norm\.weight is I64"),
        (
            "model__norm__weight",
            torch.full((16,), float("nan")),
            r"model\.norm\.weight holds values that are not finite",
        ),
    ],
)
def test_a_wrong_tensor_is_named(folder: Path, name: str, value: torch.Tensor | None, message: str) -> None:
    edit_weights(folder, **{name: value})
    with pytest.raises(RunFolderError, match=message):
        load_net(folder)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_truncated_weights_are_refused(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunFolderError, match=r"model\.safetensors"):
        load_net(folder)


def test_missing_or_unreadable_files_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(RunFolderError, match=r"no model\.safetensors"):
        load_net(folder)
    (folder / "config.json").write_text("[1, 2")
    with pytest.raises(RunFolderError, match=r"cannot read config\.json"):
        load_net(folder)
    (folder / "config.json").unlink()
    with pytest.raises(RunFolderError, match=r"no config\.json"):
        load_net(folder)
