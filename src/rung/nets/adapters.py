"""Adapters as folders in peft's format: `adapter_config.json` and `adapter_model.safetensors`, both ways.

peft opens what is written here, and what peft has written is opened here, with equal scores. A file also holds what was
trained beside the adapter: a new head, which peft calls `modules_to_save`.

Names in the files are those of transformers' network. Where ours differ (`rung.nets.encoder_names`), the functions take
`stored`, which gives the stored name of a parameter of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from rung.errors import RunFolderError
from rung.nets.lora import LoraConfig, adapters_of, add_lora, lora_layers, set_adapter
from rung.nets.quantized import QuantizedLinear
from rung.nets.weights import SafetensorsWeights
from rung.runfolder import read_json, readable_write_errors, write_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

StoredName = Callable[[str], str]

_PREFIX = "base_model.model."
_PARTS = ("lora_A", "lora_B", "lora_magnitude_vector")
# Fields of peft's file that change nothing about what the tensors mean, whatever they say. Of all others that we do not
# read, a value other than none is refused: it would be ignored otherwise, and the scores would be wrong.
_HARMLESS = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_type", "peft_version"),
        *("task_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
        *("fan_in_fan_out", "loftq_config", "megatron_core", "megatron_config", "qalora_group_size", "runtime_config"),
        *("ensure_weight_tying", "init_lora_weights", "eva_config", "lora_ga_config"),
    }
)
_READ = frozenset({"r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "bias"})
# Ways to begin that take something out of the base: such an adapter fits another base than the one it names.
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq")


def as_is(name: str) -> str:
    """The stored name of a network whose names are transformers' own."""
    return name


def holds_adapter(folder: Path) -> bool:
    """Whether `folder` is an adapter rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def save_adapter(
    net: nn.Module,
    folder: Path,
    *,
    base: str,
    task_type: str | None = None,
    stored: StoredName = as_is,
    name: str = "default",
) -> None:
    """Write the adapter `name` of `net`, and all that is trained beside it, into the existing `folder`.

    `base` is what peft shall find the base model under; `task_type` is peft's: CAUSAL_LM, SEQ_CLS, SEQ_2_SEQ_LM,
    TOKEN_CLS or none.
    """
    layers = {path: layer for path, layer in lora_layers(net).items() if name in layer.configs}
    tensors: dict[str, torch.Tensor] = {}
    for path, layer in layers.items():
        module = _PREFIX + _module_name(path, stored)
        tensors[f"{module}.lora_A.weight"] = layer.lora_A[name]
        tensors[f"{module}.lora_B.weight"] = layer.lora_B[name]
        if name in layer.lora_magnitude_vector:
            tensors[f"{module}.lora_magnitude_vector"] = layer.lora_magnitude_vector[name]
    beside = {stored(key): p for key, p in net.named_parameters() if p.requires_grad and not _is_adapter(key)}
    tensors |= {_PREFIX + key: parameter for key, parameter in beside.items()}
    config = next(iter(layers.values())).configs[name]
    adapted = {_module_name(path, stored) for path in layers}
    values = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "use_dora": config.use_dora,
        "use_rslora": config.use_rslora,
        "bias": config.bias,
        "target_modules": _short_names(adapted, _all_modules(net, stored)),
        "modules_to_save": _trained_modules(beside, adapted) or None,
        "fan_in_fan_out": getattr(getattr(net, "config", None), "model_type", None) == "gpt2",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    write_json(folder / ADAPTER_CONFIG, values)
    held = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
    with readable_write_errors(folder / ADAPTER_WEIGHTS):
        save_file(held, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def load_adapter(net: nn.Module, folder: Path, *, stored: StoredName = as_is, name: str = "default") -> None:
    """Put the adapter of `folder` on `net` and make it the active one; heads in it replace those of `net`.

    Where `net` has an adapter of this `name` on the same layers, it takes the values of the file.

    RunFolderError when the folder is no LoRA adapter, uses what is not known here, or is one of another architecture:
    tensors without a place, or of another shape.
    """
    config = read_adapter_config(folder)
    tensors = _read_tensors(folder)
    paths = {_module_name(path, stored): path for path, _ in _adaptable(net)}
    parameters = {stored(key): parameter for key, parameter in net.named_parameters()}
    adapters: dict[str, dict[str, torch.Tensor]] = {}
    beside: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        module, part = _split(key)
        if part is None and key in parameters:
            beside[key] = tensor
        elif part is not None and module in paths:
            adapters.setdefault(paths[module], {})[part] = tensor
        else:
            raise RunFolderError(
                f"this adapter is for another network: there is no place for {key}",
                where=str(folder / ADAPTER_WEIGHTS),
                hint="use it with the base model that it was trained on",
            )
    _put_on(net, adapters, config, name, str(folder / ADAPTER_WEIGHTS))
    for key, tensor in beside.items():
        _require_shape(key, tensor, parameters[key].shape, str(folder / ADAPTER_WEIGHTS))
        parameters[key].data = tensor.to(parameters[key].dtype).to(parameters[key].device)


def read_adapter_config(folder: Path) -> LoraConfig:
    """The settings in `adapter_config.json`; RunFolderError for any that are not known here."""
    path = folder / ADAPTER_CONFIG
    values = read_json(path)
    if values.get("peft_type") != "LORA":
        problem = f"this is no LoRA adapter but {values.get('peft_type')!r:.80}"
        raise RunFolderError(problem, where=str(path), hint="only LoRA and DoRA are read")
    foreign = sorted(key for key, value in values.items() if key not in _HARMLESS | _READ and value)
    if str(values.get("init_lora_weights")).startswith(_CHANGED_BASES):
        foreign.append("init_lora_weights")
    if values.get("bias", "none") != "none":
        foreign.append("bias")
    if foreign:
        key = foreign[0]
        raise RunFolderError(
            f"{ADAPTER_CONFIG} asks for {key} = {values[key]!r}, which is not known here",
            where=str(path),
            hint="merge it into its base with peft (merge_and_unload), and use that model",
        )
    try:
        return LoraConfig(
            r=_rank(values["r"]),
            lora_alpha=float(values["lora_alpha"]),
            lora_dropout=float(values.get("lora_dropout", 0.0)),
            use_dora=bool(values.get("use_dora", False)),
            use_rslora=bool(values.get("use_rslora", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{ADAPTER_CONFIG} does not say what rank or scale: {error!r}", where=str(path)) from error


def trained_beside(folder: Path) -> dict[str, torch.Size]:
    """The stored names and shapes of what the adapter in `folder` brings beside adapters: heads."""
    with SafetensorsWeights((_weights_file(folder),)) as weights:
        shapes = {key.removeprefix(_PREFIX): weights.shape(key) for key in weights.names()}
    return {key: shape for key, shape in shapes.items() if _split(key)[1] is None}


def _rank(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"r is {value!r:.80}")
    return value


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter, finite and without peft's prefix."""
    path = _weights_file(folder)
    with SafetensorsWeights((path,)) as weights:
        tensors = {key.removeprefix(_PREFIX): weights.read(key, weights.dtype(key)) for key in weights.names()}
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RunFolderError(f"tensor {key} holds values that are not finite", where=str(path))
    return tensors


def _weights_file(folder: Path) -> Path:
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        other = next(iter(sorted(file.name for file in folder.glob("adapter_model.*"))), None)
        hint = f"{other} is a pickle, which can run code: save it again with peft" if other else None
        raise RunFolderError(f"the folder has no {ADAPTER_WEIGHTS}", where=str(folder), hint=hint)
    return path


def _put_on(
    net: nn.Module, adapters: Mapping[str, Mapping[str, torch.Tensor]], config: LoraConfig, name: str, where: str
) -> None:
    """Add the adapter to the layers that the file has tensors for, and give it their values."""
    if not adapters:
        raise RunFolderError("this file holds no adapter", where=where)
    for path, parts in adapters.items():
        if "lora_A" in parts and len(parts["lora_A"]) != config.r:
            raise RunFolderError(
                f"{ADAPTER_CONFIG} says rank {config.r}, the tensors of {path} have rank {len(parts['lora_A'])}",
                where=where,
                hint="the files are of different adapters: copy or fetch the folder again",
            )
    if name not in adapters_of(net):
        values = {**vars(config), "target_modules": tuple(adapters)}
        add_lora(net, LoraConfig(**values), generator=None, name=name)
    layers = {path: layer for path, layer in lora_layers(net).items() if name in layer.configs}
    if layers.keys() != adapters.keys():
        odd = sorted(layers.keys() ^ adapters.keys())[0]
        raise RunFolderError(f"the adapter of this file and that of the network differ in {odd}", where=where)
    wanted = _PARTS if config.use_dora else _PARTS[:2]
    for path, parts in adapters.items():
        layer = layers[path]
        for part in wanted:
            parameter = getattr(layer, part)[name]
            if part not in parts:
                raise RunFolderError(f"this adapter has no {part} for {path}", where=where)
            _require_shape(f"{path}.{part}", parts[part], parameter.shape, where)
            parameter.data = parts[part].to(parameter.device, parameter.dtype, copy=True)
    set_adapter(net, name)


def _require_shape(name: str, tensor: torch.Tensor, shape: torch.Size, where: str) -> None:
    if tensor.shape != shape:
        raise RunFolderError(
            f"tensor {name} has shape {list(tensor.shape)}, this network asks for {list(shape)}",
            where=where,
            hint="use the adapter with the base model that it was trained on",
        )


def _is_adapter(parameter: str) -> bool:
    return any(f".{part}." in parameter for part in _PARTS)


def _split(key: str) -> tuple[str, str | None]:
    """The module that a tensor belongs to, and which part of its adapter it is; None for an ordinary parameter."""
    bare = key.removesuffix(".weight")
    module, _, part = bare.rpartition(".")
    return (module, part) if part in _PARTS else (module, None)


def _adaptable(net: nn.Module) -> list[tuple[str, nn.Module]]:
    layers = lora_layers(net)
    inside = tuple(f"{path}." for path in layers)
    plain = [
        (path, module)
        for path, module in net.named_modules()
        if isinstance(module, nn.Linear | QuantizedLinear) and not path.startswith(inside)
    ]
    return [*plain, *layers.items()]


def _module_name(path: str, stored: StoredName) -> str:
    """The stored name of a module: that of its matrix tells it."""
    return stored(f"{path}.weight").removesuffix(".weight")


def _all_modules(net: nn.Module, stored: StoredName) -> set[str]:
    return {_module_name(path, stored) for path, _ in _adaptable(net)}


def _short_names(adapted: set[str], every: set[str]) -> list[str]:
    """The shortest endings of names by which peft finds the `adapted` modules and none else of `every`."""
    endings = set()
    for module in adapted:
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            ending = ".".join(parts[-length:])
            if all(other in adapted for other in every if other == ending or other.endswith(f".{ending}")):
                break
        endings.add(ending)
    return sorted(endings)


def _trained_modules(parameters: Mapping[str, Any], adapted: set[str]) -> list[str]:
    """The modules of `parameters`, as peft's `modules_to_save` names them: children of the network, or of its body."""
    bodies = {module.split(".")[0] for module in adapted}
    found = set()
    for name in parameters:
        first, *rest = name.split(".")[:-1]
        found.add(".".join([first, *rest[:1]]) if first in bodies else first)
    return sorted(found)
