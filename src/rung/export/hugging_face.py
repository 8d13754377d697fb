"""A clean Hugging Face folder: what transformers reads and nothing else, the weights in the precision asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from rung.data.tokenizer_files import CONFIG_FILE
from rung.errors import RunFolderError, UsageError
from rung.export.source import Source, parameter_names
from rung.nets.architectures import FAMILIES, refuse_code
from rung.nets.pretrained import CONFIG, write_weights
from rung.nets.weights import INDEX, WEIGHTS, Weights, open_weights
from rung.runfolder import read_json, readable_write_errors, write_json

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_SHARD_BYTES = 5_000_000_000  # what the hub's client cuts files into
_OWN_FAMILIES = ("rung-",)
_COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "*.spm",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*/config.json",
    "[0-9]_*/model.safetensors",
    "LICENSE*",
)


def write_hugging_face(source: Source, folder: Path, dtype: str | None) -> str:
    """Write the model of `source` into the empty `folder`, in `dtype` (default: as it is stored); return the dtype.

    Raises UsageError for networks that transformers has no class for, RunFolderError when a weight does not fit into
    `dtype`.
    """
    if source.model_type.startswith(_OWN_FAMILIES):
        raise UsageError(
            f"{source.model_type} is a network of Rung's own: transformers has no class for it",
            where=str(source.run),
            hint=f"known there: {', '.join(name for kind in FAMILIES.values() for name in kind if '-' not in name)}",
        )
    settings = source.folder / CONFIG_FILE
    if settings.is_file():
        refuse_code(read_json(settings), str(settings))
    for pattern in _COPIED:
        for path in source.folder.glob(pattern):
            target = folder / path.relative_to(source.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    with open_weights(source.folder) as weights:
        wanted = DTYPES[dtype] if dtype else _widest(weights)
        _write(weights, folder, wanted)
    named = str(wanted).removeprefix("torch.")
    write_json(folder / CONFIG, {**source.config, "torch_dtype": named, "dtype": named})
    return next(name for name, kind in DTYPES.items() if kind == wanted)


def converted(weights: Weights, name: str, dtype: torch.dtype) -> torch.Tensor:
    """A tensor in `dtype`. RunFolderError when a value is too large for it."""
    tensor = weights.read(name, dtype)
    if not bool(torch.isfinite(tensor).all()):
        raise RunFolderError(
            f"tensor {name} holds values that are not finite in {str(dtype).removeprefix('torch.')}",
            hint="export in f32 or bf16, which hold larger numbers than f16",
        )
    return tensor


def _widest(weights: Weights) -> torch.dtype:
    kinds = {weights.dtype(name) for name in parameter_names(weights)}
    return kinds.pop() if len(kinds) == 1 else torch.float32


def _write(weights: Weights, folder: Path, dtype: torch.dtype) -> None:
    """Write all tensors: into one file, or into several with their index where one would be too large."""
    shards = list(_shards(weights, dtype.itemsize))
    if len(shards) == 1:
        write_weights({name: converted(weights, name, dtype).contiguous() for name in shards[0]}, folder)
        return
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = folder / WEIGHTS.replace(".safetensors", f"-{number:05d}-of-{len(shards):05d}.safetensors")
        tensors = {name: converted(weights, name, dtype).contiguous() for name in names}
        with readable_write_errors(file):
            save_file(tensors, file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file.name)
    total = sum(weights.shape(name).numel() for name in places) * dtype.itemsize
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _shards(weights: Weights, itemsize: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name in parameter_names(weights):
        needed = weights.shape(name).numel() * itemsize
        if names and size + needed > _SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += needed
    yield names
