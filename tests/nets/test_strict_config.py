"""Whatever stands in a configuration, it is read or refused by name: nothing else can come of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import RunFolderError
from rung.nets.bart import BartConfig
from rung.nets.decoder_config import DecoderConfig
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_decoder_config import EncoderDecoderConfig
from rung.nets.gpt2_config import GPT2Config
from rung.nets.pretrained import read_config_file
from rung.nets.recurrent_encoder_decoder import RecurrentEncoderDecoderConfig
from rung.nets.recurrent_language_model import RecurrentLMConfig
from rung.nets.rope import RopeScaling
from rung.nets.t5_config import T5Config
from rung.runfolder import read_json

YARN = RopeScaling("yarn", 4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0, truncate=True)
LLAMA3 = RopeScaling("llama3", 8.0, original_max_position_embeddings=16, low_freq_factor=1.0, high_freq_factor=4.0)
DECODER = DecoderConfig(71, 32, 56, 2, 4, 2, 8, 64, bos_token_id=1, eos_token_id=(2, 3), pad_token_id=0)
PAIRS = (71, 32, 2, 2, 4, 4, 56, 40, 64, 1, 2, 2)
Read = Callable[[Mapping[str, Any]], object]
FAMILIES: dict[str, tuple[dict[str, Any], Read]] = {
    "llama": (replace(DECODER, model_type="llama", rope_scaling=YARN).to_hf(), DecoderConfig.from_hf),
    "mistral": (replace(DECODER, model_type="mistral").to_hf(), DecoderConfig.from_hf),
    "qwen2": (replace(DECODER, model_type="qwen2").to_hf(), DecoderConfig.from_hf),
    "qwen3": (replace(DECODER, rope_scaling=LLAMA3).to_hf(), DecoderConfig.from_hf),
    "gpt2": (GPT2Config(71, 32, 56, 2, 4, 64, eos_token_id=2).to_hf(), GPT2Config.from_hf),
    "bert": (EncoderConfig(vocab_size=71).to_hf(), EncoderConfig.from_hf),
    "roberta": (EncoderConfig(model_type="roberta", pad_token_id=1).to_hf(), EncoderConfig.from_hf),
    "distilbert": (EncoderConfig(model_type="distilbert").to_hf(), EncoderConfig.from_hf),
    "t5": (
        T5Config(71, 32, 8, 56, 2, 2, 4, 0, 1, 0).to_hf(),
        lambda config: T5Config.from_hf(config, own_output=False),
    ),
    "bart": (BartConfig(*PAIRS).to_hf(), BartConfig.from_hf),
    "marian": (EncoderDecoderConfig(*PAIRS).to_hf(), EncoderDecoderConfig.from_hf),
    "rung-lstm-attention": (
        RecurrentEncoderDecoderConfig(71, 32, 32, 2, 64, 1, 2, 2).to_json(),
        RecurrentEncoderDecoderConfig.from_json,
    ),
    "rung-lm-lstm": (
        RecurrentLMConfig("lstm", 71, 32, 32, 2, 1).to_json(),
        lambda config: RecurrentLMConfig.from_json(config, "config.json"),
    ),
}
ODD: list[Any] = [
    *(None, "x", "", [], ["a"], [[]], {}, {"a": 1}, True, False),
    *(-1, 0, 1, 1.5, -0.5, 10**9, 2**63, 10**400, 1e-300, 1e300, float("inf"), float("nan")),
]


@pytest.mark.parametrize(("config", "read"), FAMILIES.values(), ids=FAMILIES.keys())
def test_every_value_of_every_key_is_read_or_refused(config: dict[str, Any], read: Read) -> None:
    read(config)
    refusals = [error for changed in variants(config) if (error := refusal(read, changed)) is not None]
    assert len(refusals) > 3 * len(config)
    assert {error.where for error in refusals} == {"config.json"}
    assert max(len(str(error)) for error in refusals) < 1000


def refusal(read: Read, config: dict[str, Any]) -> RunFolderError | None:
    try:
        read(config)
    except RunFolderError as error:
        return error
    return None


def variants(config: dict[str, Any]) -> list[dict[str, Any]]:
    """`config` without a key, or with an odd value for it; in the objects it holds too. `model_type` stays."""
    found = []
    for key, value in config.items():
        if key == "model_type":
            continue
        found.append({name: other for name, other in config.items() if name != key})
        found += [{**config, key: odd} for odd in ODD]
        if isinstance(value, dict):
            found += [{**config, key: inner} for inner in variants(value)]
    return found


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"num_hidden_layers": 1_000_000_000}, r"num_hidden_layers must be at most 1,000, not 1000000000"),
        ("marian", {"decoder_layers": 10**6}, r"decoder_layers must be at most 1,000"),
        ("llama", {"max_position_embeddings": 2**40}, r"max_position_embeddings must be at most 4,194,304"),
        ("bert", {"hidden_size": 2**31}, r"hidden_size must be at most 1,048,576"),
        ("qwen2", {"rope_theta": "500000"}, r"rope_theta must be a number, not '500000'"),
        ("mistral", {"eos_token_id": ["</s>"]}, r"eos_token_id must be a whole number of at least 0, not '</s>'"),
        ("bert", {"classifier_dropout": "0.1"}, r"classifier_dropout must be a number"),
        ("bert", {"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob must be below 1"),
        ("gpt2", {"layer_norm_epsilon": True}, r"layer_norm_epsilon must be a number"),
        ("llama", {"quantization_config": {"bits": "4" * 500}}, r"quantization_config = \{'bits': '4{40,80}\n"),
    ],
)
def test_the_wrong_value_is_named(family: str, changes: dict[str, Any], message: str) -> None:
    config, read = FAMILIES[family]
    with pytest.raises(RunFolderError, match=message):
        read({**config, **changes})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"\xff\xfe{}", b"[" * 200_000, b'{"vocab_size": ' + b"9" * 5000 + b"}", b"3"],
    ids=["empty", "cut", "list", "utf-16", "nested", "long number", "number"],
)
def test_what_is_no_json_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"config\.json") as caught:
        read_json(tmp_path / "config.json")
    assert caught.value.where == str(tmp_path / "config.json")


@pytest.mark.parametrize("config", [{}, {"model_type": None}, {"model_type": ["bert"]}])
def test_a_configuration_that_does_not_say_its_kind_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunFolderError, match="does not say what kind of network this is"):
        read_config_file(tmp_path)


def test_tokens_that_llama_numbers_minus_one_are_none() -> None:
    config, _ = FAMILIES["llama"]
    assert DecoderConfig.from_hf({**config, "pad_token_id": -1}).pad_token_id is None


def test_a_partial_rotation_of_the_whole_head_is_the_usual_one() -> None:
    config, _ = FAMILIES["qwen2"]
    usual = {"rope_type": "default", "rope_theta": 10_000.0}
    assert DecoderConfig.from_hf({**config, "rope_parameters": {**usual, "partial_rotary_factor": 1.0}}) == (
        DecoderConfig.from_hf(config)
    )
    with pytest.raises(RunFolderError, match="partial_rotary_factor"):
        DecoderConfig.from_hf({**config, "rope_parameters": {**usual, "partial_rotary_factor": 0.5}})


# What stands in the files of published models, beside sizes: transformers 2 and 3 wrote down every default.
_OLD_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("do_sample", "early_stopping", "torchscript", "use_bfloat16", "is_decoder"), False),
    **dict.fromkeys(("length_penalty", "repetition_penalty", "temperature", "top_p"), 1.0),
    **dict.fromkeys(("num_beams", "num_return_sequences"), 1),
    **dict.fromkeys(("num_labels", "_num_labels"), 2),
    "eos_token_ids": 0,
    "finetuning_task": None,
    "max_length": 20,
    "output_past": True,
    "pruned_heads": {},
    "tokenizer_class": "BertTokenizer",
    "top_k": 50,
}


@pytest.mark.parametrize(
    ("family", "keys"),
    [
        ("distilbert", _OLD_DEFAULTS),
        ("bert", _OLD_DEFAULTS),
        ("gpt2", {"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "n_special": 0, "predict_special_tokens": True}),
        ("bart", {"save_step": 58, "prefix": " ", "_num_labels": 3, "output_past": True}),
    ],
)
def test_keys_of_older_folders_change_nothing(family: str, keys: dict[str, Any]) -> None:
    config, read = FAMILIES[family]
    assert read({**config, **keys}) == read(config)
