"""A GGUF file of a decoder or encoder, for llama.cpp and what is built on it, by way of the `gguf` package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rung.errors import RunFolderError
from rung.export.card import licence_of_source
from rung.export.gguf_metadata import gguf_architecture, gguf_metadata
from rung.export.gguf_vocabulary import gguf_vocabulary
from rung.export.hugging_face import converted
from rung.export.source import Source, parameter_names
from rung.nets.gguf_config import ROPE_FACTORS
from rung.nets.gguf_file import require_gguf
from rung.nets.gguf_layout import LAYOUTS, Layout, interleave_heads
from rung.nets.weights import GGUF_WEIGHTS, Weights, open_weights
from rung.runfolder import read_json, readable_write_errors

DTYPES = {"f32": ("F32", 0), "f16": ("F16", 1), "bf16": ("BF16", 32), "q8_0": ("Q8_0", 7)}
"""ggml's name of the type, and the number of llama.cpp's `general.file_type` for a file of mostly that type."""
_BLOCK = 32  # numbers of a row that share a scale in Q8_0
# Looked up row by row or added as they are; llama.cpp wants them in float32, as all vectors.
_ALWAYS_F32 = ("position_embd.weight", "token_types.weight")
_BODY_PREFIX = "bert."
_LEFT_OUT = ("pooler.", "cls.")


def write_gguf(source: Source, folder: Path, dtype: str) -> tuple[str, ...]:
    """Write `model.gguf` into `folder`, its matrices in `dtype`; return notes on what llama.cpp does otherwise.

    Raises UsageError or TokenizerError when GGUF has no place for the network or its tokenizer, RunFolderError when the
    `gguf` package is missing or a weight does not fit.
    """
    architecture = gguf_architecture(source)
    package = require_gguf(str(source.run))
    file = folder / GGUF_WEIGHTS
    with open_weights(source.folder) as weights, readable_write_errors(file):
        plan = _Tensors(source, weights, LAYOUTS[architecture], package, dtype)
        vocabulary, notes = gguf_vocabulary(source, plan.vocabulary_size)
        writer = package.GGUFWriter(file, architecture)
        try:
            _add_metadata(writer, source, dtype)
            for key, value in gguf_metadata(source, _pooling(source)).items():
                _add(writer, f"{architecture}.{key}", value)
            for key, value in vocabulary.items():
                _add(writer, key, value)
            plan.write(writer)
        finally:
            writer.close()
    return (*notes, *plan.notes)


class _Tensors:
    """Which tensors go into the file, in what type; each is read, turned and written before the next is read."""

    def __init__(self, source: Source, weights: Weights, layout: Layout, package: Any, dtype: str) -> None:
        self._source, self._weights, self._layout, self._package = source, weights, layout, package
        self._kind = package.GGMLQuantizationType[DTYPES[dtype][0]]
        self._f32, self._f16 = package.GGMLQuantizationType.F32, package.GGMLQuantizationType.F16
        self._names = dict(self._named())
        self._coarse = 0

    @property
    def vocabulary_size(self) -> int:
        """The rows of the embedding."""
        return self._weights.shape(self._names["token_embd.weight"])[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not written in the type that was asked for."""
        if not self._coarse:
            return ()
        return (f"{self._coarse} matrices whose rows are no multiple of {_BLOCK} numbers are kept in F16",)

    def write(self, writer: Any) -> None:
        """Announce all tensors, then write them one by one."""
        factors = _rope_factors(self._source)
        if factors is not None:
            writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
        for name, stored in self._names.items():
            shape = tuple(self._weights.shape(stored))
            shape = shape[::-1] if self._layout.is_turned(name) else shape
            kind = self._kind_of(name, shape)
            self._coarse += kind == self._f16 and self._kind != self._f16
            size = _bytes(self._package, kind, shape)
            writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for name, stored in self._names.items():
            values = self._values(name, stored)
            writer.write_tensor_data(self._package.quantize(values, self._kind_of(name, values.shape)))

    def _named(self) -> Iterator[tuple[str, str]]:
        """(GGUF's name, stored name) of each tensor. RunFolderError for one that GGUF has no place for."""
        tied = bool(self._source.config.get("tie_word_embeddings", self._source.model_type == "gpt2"))
        for stored in parameter_names(self._weights):
            plain = stored.removeprefix(_BODY_PREFIX) if self._source.model_type == "bert" else stored
            if self._source.model_type == "bert" and plain.startswith(_LEFT_OUT):
                continue
            if self._source.model_type == "gpt2" and not stored.startswith(("transformer.", "lm_head.")):
                plain = f"transformer.{stored}"
            name = self._layout.gguf_name(plain)
            if name is None:
                raise RunFolderError(f"GGUF has no place for the tensor {stored}", where=str(self._source.folder))
            if not (name == "output.weight" and tied):
                yield name, stored

    def _kind_of(self, name: str, shape: tuple[int, ...]) -> Any:
        if len(shape) == 1 or name in _ALWAYS_F32:
            return self._f32
        if self._kind.name == "Q8_0" and shape[-1] % _BLOCK:
            return self._f16
        return self._kind

    def _values(self, name: str, stored: str) -> np.ndarray:
        tensor = converted(self._weights, stored, torch.float32)
        if self._kind_of(name, tuple(tensor.shape)) == self._f16 and not bool(torch.isfinite(tensor.half()).all()):
            raise RunFolderError(
                f"tensor {stored} holds values that are too large for f16", hint="export in f32, bf16 or q8_0"
            )
        if self._layout.is_turned(name):
            tensor = tensor.T
        part = self._layout.heads_interleaved(name)
        if part is not None:
            heads = self._source.config["num_attention_heads"]
            own = heads if part == "q" else self._source.config.get("num_key_value_heads") or heads
            tensor = interleave_heads(tensor, own)
        values: np.ndarray = tensor.contiguous().numpy()
        return values


def _bytes(package: Any, kind: Any, shape: tuple[int, ...]) -> int:
    block, size = package.GGML_QUANT_SIZES[kind]
    return int(np.prod(shape)) // int(block) * int(size)


def _rope_factors(source: Source) -> np.ndarray | None:
    """The tensor by which llama.cpp is told of Llama 3's scaled positions."""
    from rung.nets.decoder_config import DecoderConfig
    from rung.nets.gguf_config import llama3_factors

    if "hidden_size" not in source.config or source.model_type == "bert":
        return None
    config = DecoderConfig.from_hf(source.config)
    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type != "llama3":
        return None
    return llama3_factors(scaling, config.rope_theta, config.head_dim).astype(np.float32)


def _add_metadata(writer: Any, source: Source, dtype: str) -> None:
    writer.add_type("model")
    writer.add_name(source.run.name)
    licence = licence_of_source(source)
    if licence:
        writer.add_license(licence)
    writer.add_file_type(DTYPES[dtype][1])
    writer.add_quantization_version(2)  # GGML_QNT_VERSION, of the layout of quantised blocks


def _add(writer: Any, key: str, value: Any) -> None:
    """Write one value in the type that llama.cpp reads it as."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _pooling(source: Source) -> str | None:
    """How a sentence encoder makes one vector of a text, where its folder says so."""
    if not source.has_steps:
        return None
    for path in sorted(source.folder.glob("[0-9]_Pooling/config.json")):
        found = read_json(path)
        for mode, key in (("mean", "pooling_mode_mean_tokens"), ("cls", "pooling_mode_cls_token")):
            if found.get(key) or found.get("pooling_mode") == mode:
                return mode
    return None
