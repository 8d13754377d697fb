"""`config.json` from the metadata of a GGUF file (keys: `gguf/constants.py`), for the architectures that Rung has."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch

from rung.errors import RunFolderError
from rung.nets.architectures import unsupported
from rung.nets.gguf_file import GgufFile
from rung.nets.gguf_layout import LAYOUTS, Layout
from rung.nets.rope import RopeScaling, llama3_frequencies

ARCHITECTURE = "general.architecture"
ROPE_FACTORS = "rope_freqs.weight"
"""What Llama 3.1 and later carry instead of a key: how much slower each pair of a head turns."""
_LLAMA3: dict[str, Any] = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_HF_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "bert": "BertModel",
}
# Keys of an architecture's metadata that are read here, and those that change nothing about what is computed. Any other
# is refused, as in a `config.json`: it would be ignored otherwise.
_READ = frozenset(
    {
        *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
        *("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"),
        *("block_count", "context_length", "embedding_length", "feed_forward_length"),
        *("rope.dimension_count", "rope.freq_base", "rope.scale_linear"),
        *("rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.type"),
    }
)
_NO_EFFECT = frozenset({"pooling_type", "rope.scaling.finetuned", "tensor_data_layout", "vocab_size"})
_ONLY_VALUE: dict[str, Any] = {"attention.sliding_window": 0, "expert_count": 0, "expert_used_count": 0}
_Value = TypeVar("_Value", int, float, str)


def layout_of(file: GgufFile) -> Layout:
    """The names and turns of the file's architecture. RunFolderError for one that Rung does not have."""
    architecture = file.metadata.get(ARCHITECTURE)
    if not isinstance(architecture, str) or architecture not in LAYOUTS:
        error = unsupported(str(architecture)[:80], str(file.path))
        raise RunFolderError(error.problem, where=error.where, hint=f"of GGUF files: {', '.join(LAYOUTS)}")
    return LAYOUTS[architecture]


def head_count(file: GgufFile, part: str = "q") -> int:
    """The number of heads of queries ("q"), or of keys and values ("k")."""
    queries = _get(file, "attention.head_count", int)
    return queries if part == "q" else _get(file, "attention.head_count_kv", int, queries)


def config_from_gguf(file: GgufFile) -> dict[str, Any]:
    """The `config.json` object of a GGUF file. RunFolderError when a key is missing, wrong or not supported."""
    layout_of(file)
    architecture = str(file.metadata[ARCHITECTURE])
    _check_keys(file, architecture)
    shape = {"gpt2": _gpt2, "bert": _bert}.get(architecture, _rotary_decoder)(file)
    return {
        "architectures": [_HF_ARCHITECTURES[architecture]],
        "model_type": architecture,
        **shape,
        **_special_tokens(file),
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def _check_keys(file: GgufFile, architecture: str) -> None:
    only = {**_ONLY_VALUE, "attention.causal": architecture != "bert"}
    for name, value in file.metadata.items():
        key = name.removeprefix(f"{architecture}.")
        if key == name or key in _READ | _NO_EFFECT:
            continue
        if key not in only or value != only[key]:
            only_it = f"only {only[key]!r} is" if key in only else "Rung refuses what it cannot honour"
            problem = f"the metadata says {name} = {value!r:.60}, which is not supported"
            raise RunFolderError(problem, where=str(file.path), hint=only_it)


def _rotary_decoder(file: GgufFile) -> dict[str, Any]:
    hidden, heads = _get(file, "embedding_length", int), head_count(file)
    head_dim = _get(file, "attention.key_length", int, hidden // heads if heads else 0)
    for key in ("attention.value_length", "rope.dimension_count"):
        if _get(file, key, int, head_dim) != head_dim:
            raise _refusal(file, f"{key} differs from the size of a head, {head_dim}")
    architecture = str(file.metadata[ARCHITECTURE])
    theta = _short(_get(file, "rope.freq_base", float, 10_000.0))
    config: dict[str, Any] = {
        "vocab_size": _vocabulary_size(file),
        "hidden_size": hidden,
        "intermediate_size": _get(file, "feed_forward_length", int),
        "num_hidden_layers": _get(file, "block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": head_count(file, "k"),
        "max_position_embeddings": _get(file, "context_length", int),
        "hidden_act": "silu",
        "rms_norm_eps": _short(_get(file, "attention.layer_norm_rms_epsilon", float)),
        "rope_theta": theta,
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    if architecture != "qwen2":
        config |= {"head_dim": head_dim, "attention_bias": "blk.0.attn_q.bias" in file.tensors}
    scaling = _rope_scaling(file, theta, head_dim)
    return config | ({"rope_scaling": scaling} if scaling else {})


def _rope_scaling(file: GgufFile, theta: float, head_dim: int) -> dict[str, Any] | None:
    """The object `rope_scaling` of `config.json`, or None where positions are not scaled."""
    if ROPE_FACTORS in file.tensors:
        return _llama3_scaling(file, theta, head_dim)
    # A factor without a type is a linear one, by its present name or its first: so llama.cpp reads them.
    kind = _get(file, "rope.scaling.type", str, "linear")
    factor = _get(file, "rope.scaling.factor", float, _get(file, "rope.scale_linear", float, 1.0))
    if kind == "yarn":
        original = _get(file, "rope.scaling.original_context_length", int)
        return {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original}
    if kind not in ("linear", "none"):
        raise _refusal(file, f"rope.scaling.type {kind!r:.40} is not supported")
    return None if kind == "none" or factor in (0, 1) else {"rope_type": kind, "factor": factor}


def _llama3_scaling(file: GgufFile, theta: float, head_dim: int) -> dict[str, Any]:
    """The settings of `llama3` scaling that give the stored factors; the file itself does not tell them."""
    stored = file.values(ROPE_FACTORS)
    scaling = RopeScaling("llama3", _short(float(stored.max())), **_LLAMA3)
    if stored.shape != (head_dim // 2,) or not np.allclose(stored, llama3_factors(scaling, theta, head_dim), rtol=1e-4):
        raise _refusal(file, f"{ROPE_FACTORS} is not what Llama 3 scales its positions by")
    return scaling.to_hf()


def llama3_factors(scaling: RopeScaling, theta: float, head_dim: int) -> np.ndarray:
    """How much slower each pair of a head turns: (head_dim / 2,), what `ROPE_FACTORS` holds."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    factors: np.ndarray = (frequencies / llama3_frequencies(frequencies, scaling)).numpy()
    return factors


def _gpt2(file: GgufFile) -> dict[str, Any]:
    return {
        "vocab_size": _vocabulary_size(file),
        "n_embd": _get(file, "embedding_length", int),
        "n_inner": _get(file, "feed_forward_length", int),
        "n_layer": _get(file, "block_count", int),
        "n_head": head_count(file),
        "n_positions": _get(file, "context_length", int),
        "activation_function": "gelu_new",
        "layer_norm_epsilon": _short(_get(file, "attention.layer_norm_epsilon", float)),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }


def _bert(file: GgufFile) -> dict[str, Any]:
    kinds = file.tensors.get("token_types.weight")
    return {
        "vocab_size": _vocabulary_size(file),
        "hidden_size": _get(file, "embedding_length", int),
        "intermediate_size": _get(file, "feed_forward_length", int),
        "num_hidden_layers": _get(file, "block_count", int),
        "num_attention_heads": head_count(file),
        "max_position_embeddings": _get(file, "context_length", int),
        "type_vocab_size": kinds.shape[0] if kinds else 1,
        "hidden_act": "gelu",
        "layer_norm_eps": _short(_get(file, "attention.layer_norm_epsilon", float)),
    }


def _special_tokens(file: GgufFile) -> dict[str, int]:
    spelled = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    ids = {name: file.metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in spelled.items()}
    return {name: value for name, value in ids.items() if isinstance(value, int)}


def _vocabulary_size(file: GgufFile) -> int:
    """The height of the embedding; metadata may name fewer tokens than a padded matrix has rows."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise _refusal(file, "there is no token_embd.weight")
    return embedding.shape[0]


def _get(file: GgufFile, key: str, kind: type[_Value], default: _Value | None = None) -> _Value:
    """A value of the architecture's own metadata. RunFolderError when it is missing or of another type."""
    name = f"{file.metadata[ARCHITECTURE]}.{key}"
    value = file.metadata.get(name, default)
    if value is None:
        raise _refusal(file, f"the metadata lacks {name}")
    if isinstance(value, list) and len(set(map(str, value))) == 1:
        value = value[0]  # some writers tell a value layer by layer
    if isinstance(value, bool) or not isinstance(value, kind) or (kind is int and value < 0):  # type: ignore[operator]
        raise _refusal(file, f"{name} is {value!r:.60}")
    return value


def _short(value: float) -> float:
    """A float32 of the metadata as the decimal number that was meant: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _refusal(file: GgufFile, problem: str) -> RunFolderError:
    return RunFolderError(problem, where=str(file.path), hint="take another file, or one of another architecture")
