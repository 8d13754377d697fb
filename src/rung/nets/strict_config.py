"""Configurations read strictly: no key is ignored, and no value comes through that a network cannot be built from.

What a key means is each family's own affair. Here is what all of them do: read the file, compare its keys with those
that the family knows, build the family's dataclass, and check that dataclass by the types of its fields.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard, TypeVar

from rung.errors import RunFolderError, did_you_mean

# Keys that do not change what a network computes: labels, versions, how to train, how to run, what to return.
NO_EFFECT = frozenset(
    {
        *("_name_or_path", "architectures", "dtype", "finetuning_task", "problem_type", "task_specific_params"),
        *("id2label", "label2id", "num_labels", "_num_labels", "tokenizer_class", "transformers_version"),
        *("attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "_flash_attn_2_enabled"),
        *("gradient_checkpointing", "initializer_range", "torch_dtype", "torchscript", "use_bfloat16", "use_cache"),
        *("output_attentions", "output_hidden_states", "output_past", "return_dict"),
        *("transformers.js_config", "unsloth_fixed", "unsloth_version"),
    }
)
# How to draw texts: transformers 2 and 3 wrote these into every configuration, that of an encoder too.
OF_GENERATION = frozenset(
    {
        *("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
        *("num_beams", "num_return_sequences", "early_stopping", "max_length", "min_length", "eos_token_ids"),
    }
)

# What a damaged or hostile file may promise, so that nothing is built from it that no machine holds. The deepest
# network published has 1,000 layers (DeepNet, arXiv 2203.00555); products of all others can still be addressed.
_LARGEST = 1 << 20
_LARGEST_OF = {
    "vocab_size": 1 << 24,
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 1 << 22),
    **dict.fromkeys(
        ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers", "num_decoder_layers"), 1_000
    ),
}
_Config = TypeVar("_Config")


def check_keys(config: Mapping[str, Any], known: Collection[str], only_value: Mapping[str, Any], where: str) -> None:
    """Raise RunFolderError for a key of `config` that is not `known`, or whose `only_value` it has not."""
    for key, value in config.items():
        if key in only_value:
            allowed = only_value[key]
            if value is not None and value != allowed:
                raise RunFolderError(
                    f"{key} = {value!r:.80} is not supported", where=where, hint=f"only {allowed!r} is"
                )
        elif key not in known:
            raise RunFolderError(
                f"config.json has a key that this version does not implement: "
                f"{key:.80} = {value!r:.80}{did_you_mean(key, known)}",
                where=where,
                hint="Rung refuses what it cannot honour, so that the network cannot silently compute something else",
            )


def build_config(kind: type[_Config], values: Mapping[str, Any], where: str) -> _Config:
    """The dataclass `kind` of `values`. RunFolderError, with `where`, names what is missing or refused."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    if missing := [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]:
        raise RunFolderError(f"config.json lacks {', '.join(missing)}", where=where)
    try:
        return kind(**values)
    except RunFolderError as error:
        raise RunFolderError(error.problem, where=where, hint=error.hint) from None


def check_values(config: Any) -> None:
    """Raise RunFolderError for a field of the dataclass `config` whose value is not of the field's type and range.

    Whole numbers are at least 1, ids of tokens at least 0; numbers are finite and not negative, epsilons above 0.
    """
    for field in dataclasses.fields(config):
        name, value, kind = field.name, getattr(config, field.name), str(field.type)
        if value is None and kind.endswith("| None"):
            continue
        match kind.removesuffix(" | None"):
            case "int":
                _check_whole(name, value)
            case "int | tuple[int, ...]":
                for one in value if isinstance(value, tuple) else (value,):
                    _check_whole(name, one)
            case "float":
                if not is_number(value) or value < 0 or (value == 0 and "_eps" in name):
                    lowest = "above 0" if "_eps" in name else "of at least 0"
                    raise RunFolderError(f"{name} must be a number {lowest}, not {value!r:.80}")
            case "bool":
                if not isinstance(value, bool):
                    raise RunFolderError(f"{name} must be true or false, not {value!r:.80}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_whole(name: str, value: Any) -> None:
    is_token = name.endswith("token_id")
    lowest, most = (0, _LARGEST_OF["vocab_size"]) if is_token else (1, _LARGEST_OF.get(name, _LARGEST))
    if type(value) is not int or value < lowest:
        raise RunFolderError(f"{name} must be a whole number of at least {lowest}, not {value!r:.80}")
    if value > most:
        raise RunFolderError(f"{name} must be at most {most:,}, not {value!r:.80}")
