"""Reading and writing a decoder as a Hugging Face folder: its configuration and its weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rung.errors import RunFolderError
from rung.nets.architectures import refuse_code
from rung.nets.decoder import CausalLM, parameter_shapes
from rung.nets.decoder_config import DecoderConfig
from rung.nets.gpt2 import BODY_PREFIX, GPT2LM, GPT2Config, gpt2_parameter_shapes, old_buffers, stored_shapes, turned
from rung.nets.weights import WEIGHTS, Weights, open_weights, shown
from rung.runfolder import read_json, readable_write_errors, write_json

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def save_net(net: CausalLM | GPT2LM, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write `net` so that transformers opens it, its weights in `dtype` (default: as they are).

    A tied output matrix is left out, as `tie_word_embeddings` says it must be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = stored_tensors(net, dtype)
    stored = next(iter(weights.values())).dtype
    config = net.config.to_hf(str(stored).removeprefix("torch."))
    tokens = {name: config[name] for name in _TOKENS if config.get(name) is not None}
    write_json(folder / CONFIG, config)
    write_json(folder / GENERATION_CONFIG, {"_from_model_config": True, **tokens})
    write_weights(weights, folder)


def stored_tensors(net: CausalLM | GPT2LM, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """The parameters by the names and in the layout that a Hugging Face folder has, on the CPU."""
    tensors = {name: p.detach().to("cpu", dtype or p.dtype) for name, p in net.named_parameters()}
    if isinstance(net, GPT2LM):
        tensors = {name: turned(name, tensor) for name, tensor in tensors.items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def write_weights(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write `model.safetensors` into `folder`. RunFolderError when the disk is full or not writable."""
    with readable_write_errors(folder / WEIGHTS):
        save_file(dict(weights), folder / WEIGHTS, metadata={"format": "pt"})


def load_net(folder: Path, dtype: torch.dtype = torch.float32, *, dropout: float = 0.0) -> CausalLM | GPT2LM:
    """Read a network from a folder written by `save_net` or by transformers, its weights held in `dtype`.

    Names and shapes are compared with `config.json` before any weight is read. RunFolderError says which file is
    missing, unreadable or truncated, or which tensor is missing, extra, of the wrong shape or type, or not finite.
    """
    config = read_config(folder)
    if isinstance(config, GPT2Config):
        return _load_gpt2(folder, config, dtype, dropout)
    # Some writers keep a tied matrix under both names; the embedding is the one that counts. Old ones store the
    # frequencies of rotary positions, which the configuration decides.
    ignored = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq" for n in range(config.num_hidden_layers)}
    if config.tie_word_embeddings:
        ignored.add("lm_head.weight")
    tensors = read_weights(folder, parameter_shapes(config), dtype=dtype, ignored=ignored)
    return CausalLM(config, dropout=dropout, tensors=tensors)


def _load_gpt2(folder: Path, config: GPT2Config, dtype: torch.dtype, dropout: float) -> GPT2LM:
    """OpenAI's own folders have the body's tensors without the prefix that later ones have."""
    with open_weights(folder) as weights:
        bare = not any(name.startswith(BODY_PREFIX) for name in weights.names())
    names = {(name.removeprefix(BODY_PREFIX) if bare else name): name for name in gpt2_parameter_shapes(config)}
    expected = {stored: stored_shapes(config)[name] for stored, name in names.items()}
    buffers = {name.removeprefix(BODY_PREFIX) if bare else name for name in old_buffers(config)}
    if config.tie_word_embeddings:
        buffers.add("lm_head.weight")
    found = read_weights(folder, expected, dtype=dtype, ignored=buffers)
    tensors = {names[stored]: turned(names[stored], found.pop(stored)).contiguous() for stored in list(found)}
    return GPT2LM(config, dropout=dropout, tensors=tensors)


def read_weights(
    folder: Path, expected: Mapping[str, torch.Size], *, dtype: torch.dtype, ignored: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """Read exactly the tensors `expected` from the folder's weights, in `dtype`; those `ignored` may be there too.

    Raises RunFolderError as `load_net` does.
    """
    with open_weights(folder) as weights:
        _compare(weights, expected, str(folder), ignored)
        tensors = {}
        for name in expected:
            tensor = tensors[name] = weights.read(name, dtype)
            lowest, highest = torch.aminmax(tensor)  # NaN goes through both, and no second tensor is made
            if not math.isfinite(lowest) or not math.isfinite(highest):
                raise RunFolderError(f"tensor {name} holds values that are not finite", where=str(folder))
    return tensors


def read_config(folder: Path) -> DecoderConfig | GPT2Config:
    """Read and check the configuration alone; which tokens end a text, `generation_config.json` knows best."""
    stored, where = with_generation_tokens(read_config_file(folder), folder), str(folder / CONFIG)
    if stored.get("model_type") == GPT2Config.model_type:
        return GPT2Config.from_hf(stored, where=where)
    return DecoderConfig.from_hf(stored, where=where)


def read_config_file(folder: Path) -> dict[str, Any]:
    """The content of `config.json`. RunFolderError when there is none, it is no JSON object, or it asks to run code."""
    path = folder / CONFIG
    config: dict[str, Any] = read_json(path)
    refuse_code(config, str(path))
    if not isinstance(config.get("model_type"), str):
        raise RunFolderError(
            f"{CONFIG} does not say what kind of network this is: model_type is {config.get('model_type')!r:.80}",
            where=str(path),
            hint="take the folder of a model from whoever published it, or write the model_type that it had there",
        )
    return config


def with_generation_tokens(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`config` with the tokens of `generation_config.json`, where there is one.

    That is where instruction-tuned models name all tokens that end a text: Qwen2.5's end of a turn and of a text, say.
    """
    path = folder / GENERATION_CONFIG
    stored = read_json(path) if path.is_file() else {}
    return {**config, **{name: stored[name] for name in _TOKENS if stored.get(name) is not None}}


def _compare(weights: Weights, expected: Mapping[str, torch.Size], where: str, ignored: Collection[str]) -> None:
    found = weights.names() - set(ignored)
    for problem, names in (("lacks", expected.keys() - found), ("has unknown", found - expected.keys())):
        if names:
            raise RunFolderError(
                f"the model folder {problem} {shown(names)}", where=where, hint=f"{CONFIG} decides the names"
            )
    for name, shape in expected.items():
        if weights.shape(name) != shape:
            raise RunFolderError(
                f"tensor {name} has shape {list(weights.shape(name))}, {CONFIG} asks for {list(shape)}", where=where
            )
        weights.dtype(name)  # refuses what cannot be read
