"""Sentence encoders from and to folders of sentence-transformers.

    modules.json                      the steps in order: Transformer, Pooling, then Dense and Normalize
    config.json, model.safetensors    the body, there or in the subfolder of its step; the tokenizer beside them
    sentence_bert_config.json         the most tokens of a text
    1_Pooling/config.json             how states become one vector
    2_Dense/                          config.json and model.safetensors of a dense layer
    config_sentence_transformers.json prompts, and how embeddings are compared

No module is imported by the name that `modules.json` gives: names are compared with those known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from rung.errors import RunFolderError
from rung.nets.blank import without_values
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import load_encoder, read_pooler, save_encoder
from rung.nets.label_names import is_mean_classifier
from rung.nets.pretrained import CONFIG, read_config_file, read_weights
from rung.nets.sentence_encoder import POOLINGS, DenseConfig, SentenceConfig, SentenceNet, Step
from rung.nets.strict_config import build_config, check_keys
from rung.nets.weights import WEIGHTS
from rung.runfolder import read_json, readable_write_errors, write_json

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
_LENGTH = "sentence_bert_config.json"
_TYPES = "sentence_transformers.models."
# Old and new names of the same modes, in the order in which vectors are put side by side.
_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def is_sentence_folder(folder: Path) -> bool:
    """Whether `folder` says how its network makes sentence embeddings."""
    return (folder / MODULES).is_file()


def body_folder(folder: Path) -> Path:
    """Where the body and the tokenizer of a sentence encoder lie: `folder`, or the subfolder of the first step."""
    return folder / _steps(folder)[0][1] if is_sentence_folder(folder) else folder


def pooling_of(folder: Path) -> tuple[str, ...]:
    """How the sentence encoder in `folder` pools: "mean", "cls", ..., or several of them side by side.

    RunFolderError when the folder does not tell, or what it tells is damaged.
    """
    body, steps = body_folder(folder), _steps(folder)
    config = EncoderConfig.from_hf(read_config_file(body), where=str(body / CONFIG))
    return _pooling(folder / steps[1][1] / CONFIG, config.hidden_size)


def load_sentence_net(folder: Path, *, model_max_length: int | None = None) -> SentenceNet:
    """Read a sentence encoder, its weights in float32.

    A folder of a bare encoder, without `modules.json`, gets mean pooling, as in sentence-transformers.
    The head of a classifier is left behind. `model_max_length` is the tokenizer's, where the folder does not say how
    long a text may be. RunFolderError names what is missing, damaged or not supported.
    """
    body = load_encoder(body_folder(folder))
    longest = min(body.config.max_length, model_max_length or body.config.max_length)
    if not is_sentence_folder(folder):
        return SentenceNet(body, SentenceConfig(max_length=longest))
    asked = _max_length(folder / _steps(folder)[0][1] / _LENGTH)
    pooling, after = read_steps(folder, body.config.hidden_size)
    if is_mean_classifier(read_config_file(body_folder(folder))):
        after = after[:-1]
    config = SentenceConfig(
        max_length=min(longest, asked or longest), pooling=pooling, after=after, **_settings(folder / SETTINGS)
    )
    _check_widths(config, body.config.hidden_size, folder)
    with without_values():
        net = SentenceNet(body, config)
    load_dense(folder, [dense.linear for dense in net.dense_layers()])
    return net


def read_steps(folder: Path, hidden_size: int) -> tuple[tuple[str, ...], tuple[Step, ...]]:
    """`pooling` and `after` of the `SentenceConfig` of `folder`, whose body has states of `hidden_size`."""
    steps = _steps(folder)
    after: list[Step] = ["normalize" if kind == "Normalize" else _dense(folder / path) for kind, path in steps[2:]]
    return _pooling(folder / steps[1][1] / CONFIG, hidden_size), tuple(after)


def load_dense(folder: Path, layers: Sequence[nn.Linear]) -> None:
    """Give `layers`, those of the first dense steps of `folder`, their weights in float32."""
    paths = [path for kind, path in _steps(folder) if kind == "Dense"]
    for path, linear in zip(paths[: len(layers)], layers, strict=True):
        shapes = {f"linear.{name}": tensor.shape for name, tensor in linear.state_dict().items()}
        found = read_weights(folder / path, shapes, dtype=torch.float32)
        linear.load_state_dict({n.removeprefix("linear."): t for n, t in found.items()}, assign=True)


def save_sentence_net(net: SentenceNet, folder: Path, *, pooler: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write all but the tokenizer into the existing `folder`, so that sentence-transformers opens it.

    `pooler` (see `load_pooler`) is BERT's, which no embedding goes through: it is kept so that whoever opens the body
    as a `BertModel` finds nothing missing.
    """
    config = net.config
    save_encoder(net.body, folder, beside={f"pooler.dense.{name}": tensor for name, tensor in (pooler or {}).items()})
    write_json(folder / _LENGTH, {"max_seq_length": config.max_length, "do_lower_case": False})
    versions = {"sentence_transformers": "2.0.0"}  # from this version on, the folder opens
    write_json(
        folder / SETTINGS,
        {
            "__version__": versions,
            "prompts": dict(config.prompts),
            "default_prompt_name": config.default_prompt,
            "similarity_fn_name": config.similarity,
        },
    )
    layers = [dense.linear for dense in net.dense_layers()]
    save_steps(folder, net.body.config.hidden_size, config.pooling, config.after, layers)


def save_steps(
    folder: Path, hidden_size: int, pooling: tuple[str, ...], after: Sequence[Step], layers: Sequence[nn.Linear]
) -> None:
    """Write into the existing `folder` what follows a body with states of `hidden_size`: see `SentenceConfig`.

    `layers` are those of the dense steps.
    """
    steps = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write_in(folder / "1_Pooling", _pooling_config(pooling, hidden_size))
    dense = iter(layers)
    for number, step in enumerate(after, start=2):
        kind = "Normalize" if step == "normalize" else "Dense"
        steps.append((f"{number}_{kind}", kind))
        if isinstance(step, DenseConfig):
            values = {name: getattr(step, name) for name in ("in_features", "out_features", "bias")}
            _write_in(folder / steps[-1][0], {**values, "activation_function": step.activation})
            tensors = {f"linear.{n}": t.detach().cpu().contiguous() for n, t in next(dense).state_dict().items()}
            with readable_write_errors(folder):
                save_file(tensors, folder / steps[-1][0] / WEIGHTS, metadata={"format": "pt"})
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": _TYPES + kind}
        for number, (path, kind) in enumerate(steps)
    ]
    write_json(folder / MODULES, listed)


def load_pooler(folder: Path) -> dict[str, torch.Tensor]:
    """BERT's pooler, where the body of the sentence encoder in `folder` has one. RunFolderError as for its weights."""
    body = body_folder(folder)
    config = EncoderConfig.from_hf(read_config_file(body), where=str(body / CONFIG))
    return read_pooler(body, config)


def _write_in(folder: Path, config: Mapping[str, Any]) -> None:
    with readable_write_errors(folder):
        folder.mkdir(exist_ok=True)
    write_json(folder / CONFIG, dict(config))


def _steps(folder: Path) -> list[tuple[str, str]]:
    """(class, subfolder) of every step. RunFolderError for classes of other packages and paths out of the folder."""
    path = folder / MODULES
    steps = read_json(path, list)
    found = []
    for step in steps:
        kind, place = (step.get("type"), step.get("path")) if isinstance(step, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(place, str):
            raise RunFolderError(f"{MODULES} has a step without a type and a path: {step!r:.100}", where=str(path))
        if not kind.startswith("sentence_transformers."):
            raise RunFolderError(
                f"step {kind} is code of another package than sentence-transformers",
                where=str(path),
                hint="code from a model folder is never run; take a model of the usual steps",
            )
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            raise RunFolderError(f"{MODULES} names {place!r}, which lies outside the folder", where=str(path))
        found.append((kind.rpartition(".")[2], place))
    kinds = [kind for kind, _ in found]
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense", "Normalize"}:
        raise RunFolderError(
            f"steps {', '.join(kinds) or 'without any'} are not supported",
            where=str(path),
            hint="Transformer and Pooling, then Dense and Normalize, are",
        )
    return found


def _max_length(path: Path) -> int | None:
    """The most tokens of a text, where the folder says so. What would compute something else is refused."""
    if not path.is_file():
        return None
    stored = read_json(path)
    if stored.get("do_lower_case"):
        raise RunFolderError(
            "do_lower_case is not supported here",
            where=str(path),
            hint="let the tokenizer do it: put a Lowercase normalizer into tokenizer.json and set this to false",
        )
    task = stored.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise RunFolderError(f"transformer_task {task!r} is not supported", where=str(path))
    length = stored.get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise RunFolderError(f"max_seq_length must be a whole number of at least 1, not {length!r}", where=str(path))
    return length


def _pooling(path: Path, hidden_size: int) -> tuple[str, ...]:
    stored = read_json(path)
    known = {"word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt", *_OLD_MODES}
    check_keys(stored, known, {"include_prompt": True}, str(path))
    size = stored.get("embedding_dimension", stored.get("word_embedding_dimension"))
    if size != hidden_size:
        raise RunFolderError(f"the pooling is of vectors of {size!r}, the body's have {hidden_size}", where=str(path))
    modes = stored.get("pooling_mode") or [mode for old, mode in _OLD_MODES.items() if stored.get(old)] or ["mean"]
    names = tuple(modes) if isinstance(modes, list) else (modes,)
    if unknown := [name for name in names if name not in tuple(POOLINGS)]:  # a tuple: what a file says may have no hash
        raise RunFolderError(
            f"pooling {', '.join(map(str, unknown))} is not supported",
            where=str(path),
            hint=f"supported: {', '.join(POOLINGS)}",
        )
    return names


def _pooling_config(modes: tuple[str, ...], hidden_size: int) -> dict[str, Any]:
    """In the old spelling, which every version reads, unless the order of several modes is not the old one."""
    if modes != tuple(mode for mode in _OLD_MODES.values() if mode in modes):
        return {"embedding_dimension": hidden_size, "pooling_mode": list(modes), "include_prompt": True}
    return {"word_embedding_dimension": hidden_size, **{old: mode in modes for old, mode in _OLD_MODES.items()}}


def _dense(folder: Path) -> DenseConfig:
    path = folder / CONFIG
    stored = read_json(path)
    only = {
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
        "use_residual": False,
    }
    check_keys(stored, {"in_features", "out_features", "bias", "activation_function"}, only, str(path))
    values = {name: stored[name] for name in ("in_features", "out_features", "bias") if name in stored}
    values["activation"] = stored.get("activation_function", "torch.nn.modules.activation.Tanh")
    return build_config(DenseConfig, values, str(path))


def _settings(path: Path) -> dict[str, Any]:
    """Prompts and similarity of `SentenceConfig`."""
    stored = read_json(path) if path.is_file() else {}
    prompts, default = stored.get("prompts") or {}, stored.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise RunFolderError("prompts are not texts by name", where=str(path))
    if default is not None and default not in tuple(prompts):
        raise RunFolderError(f"default_prompt_name {default!r} is none of the prompts", where=str(path))
    similarity = stored.get("similarity_fn_name") or "cosine"
    if similarity not in ("cosine", "dot"):
        raise RunFolderError(f"similarity_fn_name {similarity!r} is not supported", where=str(path), hint="cosine, dot")
    return {"prompts": prompts, "default_prompt": default, "similarity": similarity}


def _check_widths(config: SentenceConfig, hidden_size: int, folder: Path) -> None:
    width = hidden_size * len(config.pooling)
    for step in config.after:
        if isinstance(step, DenseConfig):
            if step.in_features != width:
                raise RunFolderError(
                    f"a dense layer takes vectors of {step.in_features}, and {width} come to it", where=str(folder)
                )
            width = step.out_features
