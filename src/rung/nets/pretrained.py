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
from rung.nets.decoders import (
    AnyDecoder,
    AnyDecoderConfig,
    body_prefix,
    build_decoder,
    decoder_config,
    decoder_shapes,
    old_constants,
)
from rung.nets.gpt2 import turned, turned_shape
from rung.nets.weights import WEIGHTS, Weights, open_weights, shown
from rung.runfolder import read_json, readable_write_errors, write_json

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def save_net(net: AnyDecoder, folder: Path, dtype: torch.dtype | None = None) -> None:
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


def stored_tensors(net: AnyDecoder, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """The parameters by the names and in the layout that a Hugging Face folder has, on the CPU."""
    tensors = {name: p.detach().to("cpu", dtype or p.dtype) for name, p in net.named_parameters()}
    return {name: turned(name, tensor).contiguous() for name, tensor in tensors.items()}


def write_weights(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write `model.safetensors` into `folder`. RunFolderError when the disk is full or not writable."""
    with readable_write_errors(folder / WEIGHTS):
        save_file(dict(weights), folder / WEIGHTS, metadata={"format": "pt"})


def load_net(folder: Path, dtype: torch.dtype = torch.float32, *, dropout: float = 0.0) -> AnyDecoder:
    """Read a network from a folder written by `save_net` or by transformers, its weights held in `dtype`.

    Names and shapes are compared with `config.json` before any weight is read. RunFolderError says which file is
    missing, unreadable or truncated, or which tensor is missing, extra, of the wrong shape or type, or not finite.
    """
    config = read_config(folder)
    # Some writers keep a tied matrix under both names; the embedding is the one that counts.
    ignored = {"lm_head.weight"} if config.tie_word_embeddings else set()
    tensors = read_decoder(folder, config, decoder_shapes(config), dtype=dtype, ignored=ignored)
    return build_decoder(config, dropout=dropout, tensors=tensors)


def read_decoder(
    folder: Path,
    config: AnyDecoderConfig,
    shapes: Mapping[str, torch.Size],
    *,
    dtype: torch.dtype = torch.float32,
    ignored: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """Read the tensors `shapes` of a decoder's body, and of what stands on it, in `dtype` and as memory holds them.

    The body's may lack their prefix, as in OpenAI's own GPT-2, and have old constants beside them; the names of others
    that may be there are `ignored`. Raises RunFolderError as `load_net` does.
    """
    prefix = body_prefix(config)
    with open_weights(folder) as weights:
        is_bare = not any(name.startswith(prefix) for name in weights.names())
    names = {name.removeprefix(prefix) if is_bare else name: name for name in shapes}
    constants = {name.removeprefix(prefix) if is_bare else name for name in old_constants(config)}
    expected = {stored: turned_shape(name, shapes[name]) for stored, name in names.items()}
    found = read_weights(folder, expected, dtype=dtype, ignored=constants.union(ignored))
    return {name: turned(name, found.pop(stored)).contiguous() for stored, name in names.items()}


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


def read_config(folder: Path) -> AnyDecoderConfig:
    """Read and check the configuration alone; which tokens end a text, `generation_config.json` knows best."""
    stored, where = with_generation_tokens(read_config_file(folder), folder), str(folder / CONFIG)
    return decoder_config(stored, where=where)


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
