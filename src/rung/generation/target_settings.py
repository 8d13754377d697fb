"""How a folder wants its targets written: `generation_config.json`, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rung.errors import RunFolderError, UsageError, did_you_mean
from rung.generation.beam_search import BeamOptions
from rung.generation.target_rules import TargetRules
from rung.nets.encoder_decoder_folder import SequenceConfig
from rung.nets.pretrained import GENERATION_CONFIG, read_config_file
from rung.runfolder import read_json

_HONOURED = frozenset(
    {
        "bad_words_ids",
        "decoder_start_token_id",
        "early_stopping",
        "eos_token_id",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "max_new_tokens",
        "min_length",
        "min_new_tokens",
        "no_repeat_ngram_size",
        "num_beams",
        "renormalize_logits",
    }
)
# Settings of other ways to write, each with the value at which it does nothing; null does nothing either.
_NEUTRAL: Mapping[str, Any] = {
    "begin_suppress_tokens": [],
    "constraints": [],
    "diversity_penalty": 0.0,
    "do_sample": False,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": [],
    "force_words_ids": [],
    "forced_decoder_ids": [],
    "guidance_scale": 1.0,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "penalty_alpha": 0.0,
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "sequence_bias": {},
    "stop_strings": [],
    "suppress_tokens": [],
}
# What changes no token where nothing is drawn, or belongs to transformers' own machinery.
_NO_EFFECT = frozenset(
    {
        "_from_model_config",
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "bos_token_id",
        "cache_implementation",
        "disable_compile",
        "epsilon_cutoff",
        "eta_cutoff",
        "generation_kwargs",
        "is_assistant",
        "low_memory",
        "max_time",
        "min_p",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "pad_token_id",
        "prefill_chunk_size",
        "return_dict_in_generate",
        "return_legacy_cache",
        "target_lookbehind",
        "temperature",
        "token_healing",
        "top_h",
        "top_k",
        "top_p",
        "transformers_version",
        "typical_p",
        "use_cache",
    }
)


@dataclass(frozen=True)
class TargetSettings:
    """Rules for targets and how they are searched for; `max_tokens` None: the folder does not say.

    `stored` is the object that they come from, for folders made of this one.
    """

    rules: TargetRules
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    max_tokens: int | None = None
    stored: Mapping[str, Any] = field(default_factory=dict)


def read_target_settings(folder: Path, config: SequenceConfig) -> TargetSettings:
    """Read `generation_config.json`, or, where there is none, what `config.json` says in older folders.

    Raises RunFolderError for a setting that is not known or cannot be honoured: targets would silently be others.
    """
    path = folder / GENERATION_CONFIG
    if path.is_file():
        stored = read_json(path)
        where = str(path)
        for key, value in stored.items():
            _check(key, value, where)
    else:
        stored, where = read_config_file(folder), str(folder / "config.json")
        stored = {key: value for key, value in stored.items() if key in _HONOURED}
    start, end = config.decoder_start_token_id, config.eos_token_id
    try:
        rules = TargetRules(
            start=_token(stored, "decoder_start_token_id", config.vocab_size, where, start),
            end=_token(stored, "eos_token_id", config.vocab_size, where, end),
            never=_never(stored, config.vocab_size, where),
            forced_first=_token(stored, "forced_bos_token_id", config.vocab_size, where, None),
            forced_end=_token(stored, "forced_eos_token_id", config.vocab_size, where, None) is not None,
            min_tokens=max(_count(stored, "min_length", where, 1) - 1, _count(stored, "min_new_tokens", where, 0)),
            no_repeat_ngram_size=_count(stored, "no_repeat_ngram_size", where, 0),
            renormalised=bool(stored.get("renormalize_logits")),
        )
        options = BeamOptions(
            num_beams=_count(stored, "num_beams", where, 1),
            length_penalty=_number(stored, "length_penalty", where, 1.0),
            early_stopping=_given(stored, "early_stopping", False),
        )
    except UsageError as error:
        raise RunFolderError(error.problem, where=where, hint="mend the file") from None
    most = _most(stored, where)
    return TargetSettings(rules, options.num_beams, options.length_penalty, options.early_stopping, most, stored)


def _check(key: str, value: Any, where: str) -> None:
    if key in _HONOURED or key in _NO_EFFECT or value is None:
        return
    if key not in _NEUTRAL:
        guess = did_you_mean(key, [*_HONOURED, *_NEUTRAL])
        raise RunFolderError(
            f"the setting {key} = {value!r} is not known{guess}", where=where, hint="take it out of the file"
        )
    if value != _NEUTRAL[key]:
        raise RunFolderError(
            f"the setting {key} = {value!r} is not supported: targets are searched for with beams",
            where=where,
            hint="take it out of the file, and targets will be written without it",
        )


def _given(stored: Mapping[str, Any], key: str, default: Any) -> Any:
    value = stored.get(key)
    return default if value is None else value


def _token(stored: Mapping[str, Any], key: str, vocab_size: int, where: str, default: int | None) -> Any:
    """A token id, also where it is the only one of a list."""
    value = _given(stored, key, default)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is not None and (type(value) is not int or not 0 <= value < vocab_size):
        raise RunFolderError(f"{key} must be one of the {vocab_size} tokens, not {value!r}", where=where)
    return value


def _never(stored: Mapping[str, Any], vocab_size: int, where: str) -> tuple[int, ...]:
    words = _given(stored, "bad_words_ids", [])
    if not isinstance(words, list) or not all(isinstance(word, list) and len(word) == 1 for word in words):
        raise RunFolderError(
            "bad_words_ids may hold single tokens only", where=where, hint="take words of several tokens out"
        )
    return tuple(_token({"bad_words_ids": word}, "bad_words_ids", vocab_size, where, None) for word in words)


def _number(stored: Mapping[str, Any], key: str, where: str, default: float) -> float:
    value = _given(stored, key, default)
    if type(value) not in (int, float):
        raise RunFolderError(f"{key} must be a number, not {value!r}", where=where)
    return float(value)


def _count(stored: Mapping[str, Any], key: str, where: str, default: int) -> int:
    value = _given(stored, key, default)
    if type(value) is not int or value < 0:
        raise RunFolderError(f"{key} must be a whole number of at least 0, not {value!r}", where=where)
    return value


def _most(stored: Mapping[str, Any], where: str) -> int | None:
    """Tokens of the longest target; `max_length` counts the start token too."""
    if stored.get("max_new_tokens") is not None:
        return max(1, _count(stored, "max_new_tokens", where, 1))
    return None if stored.get("max_length") is None else max(1, _count(stored, "max_length", where, 1) - 1)
