"""Tokenizers out of GGUF metadata: the splits that llama.cpp names, WordPiece, and what may be wrong with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tokenizers

from rung.data.byte_level import byte_of_character
from rung.data.gguf_tokenizer import SPLITS, tokenizer_from_gguf
from rung.data.tokenizer import Tokenizer
from rung.errors import TokenizerError

BYTES = sorted(byte_of_character())
METADATA: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["<|end|>", "<tool>", *BYTES, "th", "the", "\u0120t", "12"],
    "tokenizer.ggml.token_type": [3, 4, *([1] * 260)],
    "tokenizer.ggml.merges": ["t h", "th e", "\u0120 t", "1 2"],
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.ggml.bos_token_id": 0,
}


def built(**changes: Any) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    metadata = {**METADATA, **{f"tokenizer.{key.replace('__', '.')}": value for key, value in changes.items()}}
    definition, config = tokenizer_from_gguf(metadata, where="here")
    return tokenizers.Tokenizer.from_str(json.dumps(definition)), config


def pieces(pre: str, text: str) -> list[str]:
    tokenizer, _ = built(ggml__pre=pre)
    alphabet = byte_of_character()
    found = tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return [bytes(alphabet[character] for character in piece).decode() for piece, _ in found]


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("gpt-2", ["It", "'s", " 1234", "  ", " a", "!?", "\n\n"]),
        ("smollm", ["It", "'s", " ", "1", "2", "3", "4", "  ", " a", "!?", "\n\n"]),
        ("qwen2", ["It", "'s", " ", "1", "2", "3", "4", "  ", " a", "!?\n\n"]),
        ("llama-bpe", ["It", "'s", " ", "123", "4", "  ", " a", "!?\n\n"]),
        ("default", ["It", "'", "s", " ", "123", "4", "  ", " a", "!?", "\n\n"]),
    ],
)
def test_text_is_cut_as_llama_cpp_cuts_it(pre: str, expected: list[str]) -> None:
    assert pieces(pre, "It's 1234   a!?\n\n") == expected


@pytest.mark.parametrize("pre", SPLITS)
def test_no_split_loses_anything(pre: str) -> None:
    definition, config = tokenizer_from_gguf({**METADATA, "tokenizer.ggml.pre": pre}, where="here")
    tokenizer = Tokenizer(json.dumps(definition), eos_token=config["eos_token"], pretokenizer_name=pre, where="here")
    text = "It's 1234   a!?\n\n \u00e9\u0301 \u6771\u4eac \U0001f600 <|end|> Don'T \t\r\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_merges_and_special_tokens_work() -> None:
    tokenizer, config = built()
    assert tokenizer.encode(" the12<tool><|end|>").tokens == ["\u0120", "the", "12", "<tool>", "<|end|>"]
    assert config.items() >= {"eos_token": "<|end|>", "bos_token": "<|end|>"}.items()
    assert config["add_bos_token"] is False
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    assert special == {"<|end|>"}


def test_a_beginning_is_added_where_the_file_says_so() -> None:
    tokenizer, config = built(ggml__add_bos_token=True)
    assert tokenizer.encode("a").tokens == ["<|end|>", "a"]
    assert config["add_bos_token"] is True
    assert tokenizer.encode("a", add_special_tokens=False).tokens == ["a"]


def test_the_chat_template_is_carried() -> None:
    assert built(chat_template="{{ messages }}")[1]["chat_template"] == "{{ messages }}"


def test_word_pieces_get_their_marks_back() -> None:
    tokenizer, config = built(
        ggml__model="bert",
        ggml__tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581play", "ing", "\u2581a"],
        ggml__token_type=[3, 3, 3, 3, 1, 1, 1],
        ggml__bos_token_id=2,
        ggml__eos_token_id=3,
        ggml__unknown_token_id=1,
        ggml__padding_token_id=0,
    )
    assert tokenizer.encode("Playing \u00e1 zz").tokens == ["[CLS]", "play", "##ing", "a", "[UNK]", "[SEP]"]
    assert (config["cls_token"], config["sep_token"], config["pad_token"]) == ("[CLS]", "[SEP]", "[PAD]")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ggml__model": None}, "has no tokenizer"),
        ({"ggml__model": "rwkv"}, "kind 'rwkv' is not supported"),
        ({"ggml__pre": "qwen3"}, "'qwen3' is not known; did you mean"),
        ({"ggml__tokens": []}, "no list of tokens"),
        ({"ggml__tokens": ["a", 5]}, "no list of tokens"),
        ({"ggml__tokens": ["a", "a"]}, "a token twice"),
        ({"ggml__token_type": [1]}, "one type for each token"),
        ({"ggml__merges": ["t q q"]}, "of tokens that are not there"),
        ({"ggml__merges": ["t zz"]}, "of tokens that are not there"),
        ({"ggml__merges": [7]}, "of tokens that are not there"),
        ({"ggml__merges": 7}, "no list of merges"),
        ({"ggml__pre": ["gpt-2"]}, "is not known"),
        ({"ggml__eos_token_id": 900}, "outside the vocabulary of 262"),
        ({"ggml__eos_token_id": "x"}, "outside the vocabulary"),
        ({"chat_template": 3}, "no text"),
        ({"ggml__model": "bert", "ggml__tokens": ["a"], "ggml__token_type": [1]}, "lacks"),
    ],
)
def test_damage_is_named(changes: dict[str, Any], problem: str) -> None:
    if "ggml__tokens" in changes and "ggml__token_type" not in changes:
        changes["ggml__token_type"] = [1] * len(changes["ggml__tokens"])
    with pytest.raises(TokenizerError, match=problem) as caught:
        built(**changes)
    assert caught.value.where == "here"


def test_a_character_whose_byte_is_missing_is_refused_and_not_lost() -> None:
    """SmolLM2's vocabulary has no token for U+0004, nor for the bytes that begin planes 4 to 11."""
    kept = [token for token in METADATA["tokenizer.ggml.tokens"] if token not in ("\u0104", "\u00f1")]
    metadata = {**METADATA, "tokenizer.ggml.tokens": kept, "tokenizer.ggml.token_type": [3, 4, *([1] * 258)]}
    definition, config = tokenizer_from_gguf(metadata, where="here")
    tokenizer = Tokenizer(json.dumps(definition), eos_token=config["eos_token"], pretokenizer_name=None, where="here")
    assert (
        tokenizer.decode(tokenizer.encode("caf\u00e9 \u00f1 \U0001f600 \U0010ffff"))
        == "caf\u00e9 \u00f1 \U0001f600 \U0010ffff"
    )
    for text, code in (("a\x04b", "U\\+0004"), ("\U00040000", "U\\+40000"), ("\U0007ffff", "U\\+7FFFF")):
        for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["", text])):
            with pytest.raises(TokenizerError, match=code):
                encode(text)
    with pytest.raises(TokenizerError, match="0xF1"):
        tokenizer.encode_bytes(b"\xf1")
