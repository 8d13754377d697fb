"""What a GGUF file says of a network beside its weights: the inverse of `rung.nets.gguf_config`."""

from __future__ import annotations

from typing import Any

from rung.errors import UsageError
from rung.export.source import Source

_ROTARY = ("llama", "mistral", "qwen2", "qwen3")
_POOLING_TYPES = {"mean": 1, "cls": 2, "lasttoken": 3}  # LLAMA_POOLING_TYPE_* of llama.h
GGUF_ARCHITECTURES = {"mistral": "llama", **{name: name for name in ("llama", "qwen2", "qwen3", "gpt2", "bert")}}
"""By `model_type`: Mistral without a sliding window is the same network as Llama, and llama.cpp has no other name."""


def gguf_architecture(source: Source) -> str:
    """What llama.cpp calls the network. UsageError when it has none for it, or none for its head."""
    architecture = GGUF_ARCHITECTURES.get(source.model_type)
    if architecture is None:
        raise UsageError(
            f"GGUF has no place for a network of type {source.model_type} here",
            where=str(source.run),
            hint=f"written: {', '.join(GGUF_ARCHITECTURES)}; others: --to hf or --to onnx",
        )
    if source.pipeline not in ("text-generation", "sentence-similarity", "feature-extraction"):
        raise UsageError(
            f"GGUF has no place for the head of {source.architecture} ({source.pipeline})",
            where=str(source.run),
            hint="decoders that write text and encoders that embed it are written; others: --to hf or --to onnx",
        )
    return architecture


def gguf_metadata(source: Source, pooling: str | None) -> dict[str, Any]:
    """The values of the architecture's own keys, without the architecture's name before them.

    Whole numbers, floats and booleans mean uint32, float32 and bool. `pooling` is for encoders.
    """
    if source.model_type in _ROTARY:
        return _rotary_decoder(source)
    activation = source.config.get("activation_function", source.config.get("hidden_act"))
    if activation not in ("gelu", "gelu_new"):
        raise UsageError(
            f"llama.cpp computes {source.model_type} with GELU, not with {activation}", where=str(source.run)
        )
    return _gpt2(source.config) if source.model_type == "gpt2" else _bert(source.config, pooling)


def _rotary_decoder(source: Source) -> dict[str, Any]:
    from rung.nets.decoder_config import DecoderConfig

    config = DecoderConfig.from_hf(source.config, where=str(source.folder))
    if config.attention_bias and config.model_type == "qwen3":
        raise UsageError("llama.cpp has no biases in a qwen3 network's attention", where=str(source.run))
    values: dict[str, Any] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(config.rope_theta),
        "rope.dimension_count": config.head_dim,
        "vocab_size": config.vocab_size,
    }
    return values | _rope_scaling(source, config)


def _rope_scaling(source: Source, config: Any) -> dict[str, Any]:
    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type in ("dynamic", "llama3"):
        return {}  # dynamic changes nothing within the context; llama3 is a tensor (`rung.export.gguf`)
    if scaling.rope_type == "yarn":
        odd = (scaling.attention_factor, scaling.beta_fast, scaling.beta_slow, scaling.mscale, scaling.mscale_all_dim)
        if any(value is not None for value in odd):
            raise UsageError("GGUF has no place for these settings of yarn's scaling", where=str(source.run))
        original = {"rope.scaling.original_context_length": scaling.original_max_position_embeddings}
    else:
        original = {}
    return {"rope.scaling.type": scaling.rope_type, "rope.scaling.factor": float(scaling.factor), **original}


def _gpt2(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "context_length": config["n_positions"],
        "embedding_length": config["n_embd"],
        "block_count": config["n_layer"],
        "feed_forward_length": config.get("n_inner") or 4 * config["n_embd"],
        "attention.head_count": config["n_head"],
        "attention.layer_norm_epsilon": float(config["layer_norm_epsilon"]),
        "vocab_size": config["vocab_size"],
    }


def _bert(config: dict[str, Any], pooling: str | None) -> dict[str, Any]:
    return {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.layer_norm_epsilon": float(config["layer_norm_eps"]),
        "attention.causal": False,
        "vocab_size": config["vocab_size"],
        **({"pooling_type": _POOLING_TYPES[pooling]} if pooling in _POOLING_TYPES else {}),
    }
