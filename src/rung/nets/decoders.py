"""Decoders of every family as one: Llama's kind (`rung.nets.decoder`) and GPT-2 (`rung.nets.gpt2`).

Whoever opens a decoder, or puts another head on its body, asks here for what differs: the class of the network, and
what its tensors are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rung.nets.architectures import FAMILIES, unsupported
from rung.nets.decoder import CausalLM, parameter_shapes
from rung.nets.decoder_config import DecoderConfig
from rung.nets.gpt2 import BODY_PREFIX, GPT2LM, gpt2_parameter_shapes, old_buffers
from rung.nets.gpt2_config import GPT2Config

AnyDecoder = CausalLM | GPT2LM
AnyDecoderConfig = DecoderConfig | GPT2Config


def decoder_config(config: Mapping[str, Any], *, where: str = "config.json") -> AnyDecoderConfig:
    """Read a `config.json` object. RunFolderError names what is missing, unknown or not supported."""
    model_type = config.get("model_type")
    if model_type == GPT2Config.model_type:
        return GPT2Config.from_hf(config, where=where)
    if model_type not in FAMILIES["decoders"]:
        raise unsupported(str(model_type), where, usable=FAMILIES["decoders"])
    return DecoderConfig.from_hf(config, where=where)


def build_decoder(
    config: AnyDecoderConfig,
    *,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> AnyDecoder:
    """A network that holds `tensors`, uncopied, or draws its parameters from `generator`: see `CausalLM`."""
    if isinstance(config, GPT2Config):
        return GPT2LM(config, dropout=dropout, generator=generator, tensors=tensors)
    return CausalLM(config, dropout=dropout, generator=generator, tensors=tensors)


def decoder_shapes(config: AnyDecoderConfig) -> dict[str, torch.Size]:
    """The name and shape in memory of every stored tensor, without allocating any."""
    return gpt2_parameter_shapes(config) if isinstance(config, GPT2Config) else parameter_shapes(config)


def body_prefix(config: AnyDecoderConfig) -> str:
    """What the names of the body's tensors begin with, whatever head stands on it."""
    return BODY_PREFIX if isinstance(config, GPT2Config) else "model."


def old_constants(config: AnyDecoderConfig) -> frozenset[str]:
    """What older versions of transformers stored beside the weights of the body, and the configuration decides."""
    if isinstance(config, GPT2Config):
        return frozenset(old_buffers(config))
    numbers = range(config.num_hidden_layers)
    return frozenset(f"model.layers.{number}.self_attn.rotary_emb.inv_freq" for number in numbers)
