"""Encoder-decoders as folders: Marian's layout for the Transformer, which transformers opens; our own for the LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rung.errors import RunFolderError
from rung.nets.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, parameter_shapes
from rung.nets.pretrained import (
    CONFIG,
    GENERATION_CONFIG,
    read_config_file,
    read_weights,
    write_weights,
)
from rung.nets.recurrent_encoder_decoder import (
    RecurrentEncoderDecoder,
    RecurrentEncoderDecoderConfig,
    recurrent_parameter_shapes,
)
from rung.runfolder import write_json

_BIAS = "final_logits_bias"
# Copies of the shared embeddings, and position tables, that other writers store beside the parameters.
_COPIES = frozenset(
    {
        "lm_head.weight",
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
        "model.encoder.embed_positions.weight",
        "model.decoder.embed_positions.weight",
    }
)


def save_encoder_decoder(
    net: EncoderDecoder | RecurrentEncoderDecoder, folder: Path, *, never: Sequence[int] = ()
) -> None:
    """Write configuration, weights and generation settings into `folder`; a tokenizer is the caller's to add.

    `never`: tokens that `generate` of transformers shall not write, beside padding. RunFolderError when the disk is
    full or not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in net.named_parameters()}
    if isinstance(net, EncoderDecoder):
        stored = str(next(iter(weights.values())).dtype).removeprefix("torch.")
        write_json(folder / CONFIG, net.config.to_hf(stored))
        bias = net.lm_head.bias
        weights[_BIAS] = torch.zeros(1, net.config.vocab_size) if bias is None else bias.detach().cpu()[None]
    else:
        write_json(folder / CONFIG, net.config.to_json())
    write_json(folder / GENERATION_CONFIG, _generation_settings(net.config, never))
    write_weights(weights, folder)


def load_encoder_decoder(folder: Path, *, dropout: float = 0.0) -> EncoderDecoder | RecurrentEncoderDecoder:
    """Read a network written by `save_encoder_decoder`, or by transformers as a `MarianMTModel`, in float32.

    RunFolderError says what is missing, unknown or damaged, or that the folder holds another kind of network.
    """
    stored = read_config_file(folder)
    where, kind = str(folder / CONFIG), stored.get("model_type")
    if kind == EncoderDecoderConfig.model_type:
        return _load_marian(folder, EncoderDecoderConfig.from_hf(stored, where=where), dropout)
    if kind == RecurrentEncoderDecoderConfig.model_type:
        config = RecurrentEncoderDecoderConfig.from_json(stored, where=where)
        tensors = read_weights(folder, recurrent_parameter_shapes(config), dtype=torch.float32)
        return RecurrentEncoderDecoder(config, dropout=dropout, tensors=tensors)
    known = f"known: {EncoderDecoderConfig.model_type}, {RecurrentEncoderDecoderConfig.model_type}"
    raise RunFolderError(
        f"model_type {kind!r} is not an encoder-decoder that this version knows", where=where, hint=known
    )


def _load_marian(folder: Path, config: EncoderDecoderConfig, dropout: float) -> EncoderDecoder:
    shapes = parameter_shapes(config)
    expected = {**shapes, _BIAS: torch.Size((1, config.vocab_size))}
    tensors = read_weights(folder, expected, dtype=torch.float32, ignored=_COPIES)
    bias = tensors.pop(_BIAS)[0]
    return EncoderDecoder(config, dropout=dropout, tensors=tensors, logits_bias=bias if bool(bias.any()) else None)


def _generation_settings(
    config: EncoderDecoderConfig | RecurrentEncoderDecoderConfig, never: Sequence[int]
) -> dict[str, Any]:
    """What `generate` of transformers must be told: where a target starts and ends, and what it never holds."""
    return {
        "bad_words_ids": [[token] for token in (config.pad_token_id, *never)],
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "forced_eos_token_id": config.eos_token_id,
        "max_length": config.max_position_embeddings,
        "pad_token_id": config.pad_token_id,
    }
