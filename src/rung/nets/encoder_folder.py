"""The bodies of encoders from and to Hugging Face folders, whatever head stands on them there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from rung.nets.blank import without_values
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_names import NAMES, as_stored, body_prefix
from rung.nets.pretrained import CONFIG, read_config_file, read_weights, write_weights
from rung.nets.weights import open_weights
from rung.runfolder import write_json

_POOLER = "pooler.dense."


def load_encoder(folder: Path) -> Encoder:
    """Read the body of the encoder in `folder`, its weights in float32; a head, or BERT's pooler, is left behind.

    RunFolderError says what is missing, unknown, damaged or of another size than `config.json` promises.
    """
    config = EncoderConfig.from_hf(read_config_file(folder), where=str(folder / CONFIG))
    with without_values():
        encoder = Encoder(config)
    shapes = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    encoder.load_state_dict(read_body(folder, config, shapes), assign=True)
    return encoder


def save_encoder(encoder: Encoder, folder: Path, *, beside: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the body alone (`BertModel`, ...) into the existing `folder`; `beside`: further tensors to keep."""
    names = NAMES[encoder.config.model_type]
    write_json(folder / CONFIG, encoder.config.to_hf("Model"))
    tensors = {names.of_body(name): t.detach().cpu().contiguous() for name, t in encoder.state_dict().items()}
    write_weights({**tensors, **(beside or {})}, folder)


def read_body(folder: Path, config: EncoderConfig, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """The tensors `shapes` of a body by our names, in float32. RunFolderError as `load_encoder`.

    Where they stand under a prefix (`bert.`), what is not under it belongs to a head and is left behind.
    """
    names, stored = NAMES[config.model_type], stored_names(folder)
    prefix = body_prefix(stored, names)
    wanted = {prefix + names.of_body(name): name for name in shapes}
    ignored = [name for name in stored if not name.startswith(prefix)]
    found = read_renamed(
        folder,
        {theirs: shapes[ours] for theirs, ours in wanted.items()},
        ignored=(*ignored, *names.unused_of_body(prefix)),
    )
    return {wanted[theirs]: tensor for theirs, tensor in found.items()}


def read_pooler(folder: Path, config: EncoderConfig) -> dict[str, torch.Tensor]:
    """`weight` and `bias` of BERT's pooler in float32, or nothing where there is none. Errors as in `read_body`."""
    stored = stored_names(folder)
    prefix = body_prefix(stored, NAMES[config.model_type]) + _POOLER
    if not any(name.startswith(prefix) for name in stored):
        return {}
    size = config.hidden_size
    shapes = {f"{prefix}weight": torch.Size((size, size)), f"{prefix}bias": torch.Size((size,))}
    found = read_weights(folder, shapes, dtype=torch.float32, ignored=set(stored) - shapes.keys())
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def read_renamed(
    folder: Path, shapes: Mapping[str, torch.Size], *, ignored: Iterable[str] = ()
) -> dict[str, torch.Tensor]:
    """Read exactly the tensors `shapes` in float32, whose layer norms may have older names (gamma, beta).

    What else begins with an entry of `ignored` may be there too. RunFolderError as `rung.nets.pretrained.read_weights`.
    """
    stored, beginnings = stored_names(folder), tuple(ignored)
    spelled = as_stored(shapes, stored)
    extra = {name for name in stored if name.startswith(beginnings)} - set(spelled.values())
    found = read_weights(
        folder, {spelled[name]: shape for name, shape in shapes.items()}, dtype=torch.float32, ignored=extra
    )
    return {name: found[spelled[name]] for name in shapes}


def stored_names(folder: Path) -> frozenset[str]:
    """The names of all tensors in `folder`. RunFolderError when there are none to be read."""
    with open_weights(folder) as weights:
        return weights.names()
