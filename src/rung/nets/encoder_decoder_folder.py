"""Encoder-decoders as folders: Marian's, BART's and T5's, which transformers opens; our own for the LSTM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rung.errors import RunFolderError
from rung.nets.architectures import FAMILIES, unsupported
from rung.nets.bart import BartConfig
from rung.nets.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, parameter_shapes, position_table
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
from rung.nets.t5 import T5, T5Config, t5_parameter_shapes
from rung.nets.weights import open_weights
from rung.runfolder import write_json

SequenceNet = EncoderDecoder | T5 | RecurrentEncoderDecoder
"""Whatever writes a target for a source: `config`, `encode`, `decode`, `lm_head`."""
SequenceConfig = EncoderDecoderConfig | T5Config | RecurrentEncoderDecoderConfig

_BIAS, _OUTPUT = "final_logits_bias", "lm_head.weight"
_PREFIX = "model."
# Copies of the shared embeddings that other writers store beside them, and position tables that are computed.
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_COMPUTED = ("encoder.embed_positions.weight", "decoder.embed_positions.weight")
_ROUNDING = 5e-3  # of values up to 1 in bfloat16
# Tensors of old versions of transformers and of T5's that no network looks at.
_UNUSED = frozenset(
    {
        "encoder.version",
        "decoder.version",
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
    }
)


def save_encoder_decoder(
    net: SequenceNet, folder: Path, *, never: Sequence[int] = (), generation: Mapping[str, Any] | None = None
) -> None:
    """Write configuration, weights and generation settings into `folder`; a tokenizer is the caller's to add.

    `never`: tokens that `generate` of transformers shall not write, beside padding. `generation`: the settings of the
    folder that the network comes from, written instead of our own. RunFolderError when the disk is full or not
    writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in net.named_parameters()}
    stored = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    if isinstance(net, RecurrentEncoderDecoder):
        write_json(folder / CONFIG, net.config.to_json())
    else:
        write_json(folder / CONFIG, net.config.to_hf(stored))
    if isinstance(net, EncoderDecoder):
        bias = net.lm_head.bias
        weights[_BIAS] = torch.zeros(1, net.config.vocab_size) if bias is None else bias.detach().cpu()[None]
    write_json(
        folder / GENERATION_CONFIG, _generation_settings(net.config, never) if generation is None else generation
    )
    write_weights(weights, folder)


def load_encoder_decoder(folder: Path, *, dropout: float = 0.0) -> SequenceNet:
    """Read a network written by `save_encoder_decoder`, or by transformers as one of its encoder-decoders, in float32.

    RunFolderError says what is missing, unknown or damaged, or that the folder holds another kind of network.
    """
    stored = read_config_file(folder)
    where, kind = str(folder / CONFIG), stored.get("model_type")
    if kind == RecurrentEncoderDecoderConfig.model_type:
        config = RecurrentEncoderDecoderConfig.from_json(stored, where=where)
        tensors = read_weights(folder, recurrent_parameter_shapes(config), dtype=torch.float32)
        return RecurrentEncoderDecoder(config, dropout=dropout, tensors=tensors)
    if kind in ("t5", "mt5"):
        return _load_t5(folder, stored, where, dropout)
    for one in (EncoderDecoderConfig, BartConfig):
        if kind == one.model_type:
            return _load_marian(folder, one.from_hf(stored, where=where), dropout)
    raise unsupported(str(kind), where, usable=FAMILIES["encoder-decoders"])


def is_encoder_decoder(model_type: object) -> bool:
    """Whether `load_encoder_decoder` opens networks of this `model_type`."""
    return model_type in (*FAMILIES["encoder-decoders"], RecurrentEncoderDecoderConfig.model_type)


def _load_marian(folder: Path, config: EncoderDecoderConfig, dropout: float) -> EncoderDecoder:
    """Marian and BART. A folder of the bare body (`BartModel`) has its names without a prefix and no bias."""
    with open_weights(folder) as weights:
        names = weights.names()
    prefix = "" if "shared.weight" in names else _PREFIX
    expected = {prefix + name.removeprefix(_PREFIX): shape for name, shape in parameter_shapes(config).items()}
    if _BIAS in names:
        expected[_BIAS] = torch.Size((1, config.vocab_size))
    ignored = {*(prefix + name for name in (*_COPIES, *_UNUSED)), _OUTPUT, *_UNUSED}
    if not config.learned_positions:
        ignored |= {prefix + name for name in _COMPUTED}
    tensors = read_weights(folder, expected, dtype=torch.float32, ignored=ignored)
    _require_copies(folder, tensors[prefix + "shared.weight"], (_OUTPUT, *(prefix + name for name in _COPIES)))
    if not config.learned_positions:
        _require_sines(folder, config, tuple(prefix + name for name in _COMPUTED))
    bias = tensors.pop(_BIAS)[0] if _BIAS in expected else None
    return EncoderDecoder(
        config,
        dropout=dropout,
        tensors={_PREFIX + name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()},
        logits_bias=bias if bias is not None and bool(bias.any()) else None,
    )


def _load_t5(folder: Path, stored: Mapping[str, Any], where: str, dropout: float) -> T5:
    """T5's folders do not say reliably whether there is one matrix for embeddings and output: the weights do."""
    with open_weights(folder) as weights:
        own = {_OUTPUT, "shared.weight"} <= weights.names() and not torch.equal(
            *(weights.read(name, torch.float32) for name in (_OUTPUT, "shared.weight"))
        )
    config = T5Config.from_hf(stored, own_output=own, where=where)
    ignored = {*_COPIES, *_UNUSED} | (set() if own else {_OUTPUT})
    tensors = read_weights(folder, t5_parameter_shapes(config), dtype=torch.float32, ignored=ignored)
    _require_copies(folder, tensors["shared.weight"], _COPIES)
    return T5(config, tensors=tensors, dropout=dropout)


def _require_copies(folder: Path, embeddings: torch.Tensor, names: Sequence[str]) -> None:
    """Raise RunFolderError where what should be a copy of the embeddings is not one: it would be another network."""
    with open_weights(folder) as weights:
        for name in weights.names() & set(names):
            if not torch.equal(weights.read(name, embeddings.dtype), embeddings):
                raise RunFolderError(
                    f"{name} differs from the shared embeddings",
                    where=str(folder),
                    hint="only networks that share one matrix for both sides and the output are supported here",
                )


def _require_sines(folder: Path, config: EncoderDecoderConfig, names: Sequence[str]) -> None:
    """Raise RunFolderError where a stored table of positions is not the one that is computed, but for its rounding."""
    sines = position_table(config.max_position_embeddings, config.d_model)
    with open_weights(folder) as weights:
        for name in weights.names() & set(names):
            stored = weights.read(name, torch.float32)
            if stored.shape != sines.shape or not torch.allclose(stored, sines, atol=_ROUNDING):
                raise RunFolderError(
                    f"{name} does not hold the sines and cosines of the paper",
                    where=str(folder),
                    hint="only Marian networks whose positions were not trained are supported here",
                )


def _generation_settings(config: SequenceConfig, never: Sequence[int]) -> dict[str, Any]:
    """What `generate` of transformers must be told: where a target starts and ends, and what it never holds."""
    return {
        "bad_words_ids": [[token] for token in (config.pad_token_id, *never)],
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "forced_eos_token_id": config.eos_token_id,
        "max_length": config.max_position_embeddings,
        "pad_token_id": config.pad_token_id,
    }
