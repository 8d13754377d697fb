"""Tokenizers in the layouts that the hub has: the same ids as transformers' AutoTokenizer, whatever is left unsaid."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer, Tokenizer
from tokenizers.processors import BertProcessing, RobertaProcessing
from transformers import AutoTokenizer

from rung.data.text_encoder import TextEncoder
from rung.errors import TokenizerError

TEXTS = [
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "Ünïcödé, 東京 and \u0939\u093f\u0928\u094d\u0926\u0940; tabs\tand\nlines.",
    "  leading and   inner spaces  ",
    "émigré naïve coöperate 12,345.67 e-mail@example.org",
    "",
    "a",
]
CONFIGS: dict[str, dict[str, Any]] = {
    "roberta": {"model_type": "roberta", "vocab_size": 400},
    "distilbert": {"model_type": "distilbert", "vocab_size": 400},
    "bert": {"model_type": "bert", "vocab_size": 400},
}
BRACKETS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ANGLES = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}


def tokenizer_of(family: str) -> Tokenizer:
    """A tokenizer of the family's kind, trained on a few lines."""
    if family == "roberta":
        trained = ByteLevelBPETokenizer()
        trained.train_from_iterator(TEXTS * 3, 400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
        made = Tokenizer.from_str(trained.to_str())
        made.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
        return made
    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(TEXTS * 3, 400)
    made = Tokenizer.from_str(pieces.to_str())
    made.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def folder_of(family: str, layout: str, tmp_path: Path) -> Path:
    """A folder as the hub has them: all said in one file, roles in a file of their own, or hardly anything said."""
    tokens = ANGLES if family == "roberta" else BRACKETS
    tokenizer_of(family).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[family]), encoding="utf-8")
    config: dict[str, Any] = {"model_max_length": 512}
    if layout == "all in one file":
        config |= tokens
    elif layout == "tokens as objects":
        config |= {
            role: {"__type": "AddedToken", "content": token, "lstrip": False, "normalized": False}
            for role, token in tokens.items()
        }
    elif layout == "roles in a file of their own":
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(tokens), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def random_texts(count: int) -> list[str]:
    draw = random.Random(3)  # noqa: S311 - not for secrets
    letters = "abcdefghij  .,'?!-ÄÖéß東京🙂\u0939\u093f\t0123456789THE"
    return ["".join(draw.choices(letters, k=draw.randrange(60))) for _ in range(count)]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(
    "layout", ["all in one file", "tokens as objects", "roles in a file of their own", "hardly anything said"]
)
def test_ids_are_those_of_auto_tokenizer(family: str, layout: str, tmp_path: Path) -> None:
    folder = folder_of(family, layout, tmp_path)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = TextEncoder.load(folder)
    texts = [*TEXTS, *random_texts(200)]
    expected = theirs(texts)["input_ids"]
    encoded = ours.encode(texts)
    found = [
        encoded.ids[start : start + size].tolist() for start, size in zip(encoded.starts, encoded.lengths, strict=True)
    ]
    assert found == expected
    for role in ("pad_token", "cls_token", "sep_token", "mask_token"):
        assert ours.token_id(role) == getattr(theirs, f"{role}_id"), role


def test_truncated_texts_keep_their_brackets_as_theirs_do(tmp_path: Path) -> None:
    folder = folder_of("roberta", "hardly anything said", tmp_path)
    encoded = TextEncoder.load(folder).encode(TEXTS, max_length=7)
    expected = AutoTokenizer.from_pretrained(folder)(TEXTS, truncation=True, max_length=7)["input_ids"]
    found = [
        encoded.ids[start : start + size].tolist() for start, size in zip(encoded.starts, encoded.lengths, strict=True)
    ]
    assert found == expected
    assert encoded.truncated == sum(len(ids) == 7 for ids in expected)


@pytest.mark.parametrize("lower", [True, False])
def test_do_lower_case_counts_as_it_does_there(lower: bool, tmp_path: Path) -> None:
    folder = folder_of("bert", "all in one file", tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": lower}), encoding="utf-8")
    text = "The QUICK Brown fox"
    assert TextEncoder.load(folder).encode([text]).ids.tolist() == AutoTokenizer.from_pretrained(folder)(text).input_ids


def test_a_map_of_tokens_that_is_no_object_is_refused(tmp_path: Path) -> None:
    folder = folder_of("bert", "all in one file", tmp_path)
    (folder / "special_tokens_map.json").write_text("[]", encoding="utf-8")
    with pytest.raises(TokenizerError, match="not JSON objects"):
        TextEncoder.load(folder)


CASES: list[dict[str, Any]] = [
    {},
    {"do_lower_case": True, "tokenizer_class": "BertTokenizer"},
    {"do_lower_case": False, "tokenizer_class": "BertTokenizerFast"},
    {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
    {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, "cls_token": "[MASK]"},
]


def vocabulary_folder(tmp_path: Path, config: dict[str, Any] | None, *, more: str = "") -> Path:
    """A folder of BERT as it was before `tokenizer.json`."""
    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator([text.lower() for text in TEXTS] * 3, 400)
    vocabulary = pieces.get_vocab()
    lines = "\n".join(sorted(vocabulary, key=vocabulary.__getitem__))
    (tmp_path / "vocab.txt").write_text(f"{lines}\n{more}", encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["bert"]), encoding="utf-8")
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("config", [None, *CASES])
def test_ids_of_a_plain_vocabulary_are_those_of_transformers(config: dict[str, Any] | None, tmp_path: Path) -> None:
    folder = vocabulary_folder(tmp_path, config)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = TextEncoder.load(folder)
    ours.save(tmp_path, model_max_length=512)  # from then on it has a tokenizer.json
    texts = [*TEXTS, *random_texts(1000)]
    expected = theirs(texts)["input_ids"]
    for encoder in (ours, TextEncoder.load(folder)):
        encoded = encoder.encode(texts)
        assert [part.tolist() for part in np.split(encoded.ids, encoded.starts[1:])] == expected
        for role in ("pad_token", "cls_token", "sep_token", "mask_token"):
            assert encoder.token_id(role) == getattr(theirs, f"{role}_id"), role


@pytest.mark.parametrize(
    ("config", "more", "problem", "hint"),
    [
        ({}, "Rome\n", "capital letters .'Rome'.*nothing says", "do_lower_case"),
        ({"cls_token": "<s>"}, "", "lacks <s>", "cls_token"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "", "no tokenizer.json, only vocab.txt", "AutoTokenizer"),
    ],
)
def test_what_a_plain_vocabulary_does_not_tell_is_asked_for(
    config: dict[str, Any], more: str, problem: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(TokenizerError, match=problem) as caught:
        TextEncoder.load(vocabulary_folder(tmp_path, config, more=more))
    assert hint in (caught.value.hint or "")


def test_a_folder_without_any_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="the folder has no tokenizer") as caught:
        TextEncoder.load(tmp_path)
    assert caught.value.hint
