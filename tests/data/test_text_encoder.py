"""Encoders of texts for classifiers: what transformers' AutoTokenizer gives, and no surprise in odd texts."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from rung.data.text_encoder import TextEncoder, train_byte_pairs, train_words
from rung.data.wordpiece import train_wordpieces
from rung.errors import TokenizerError

TEXTS = [
    "How far is it from Denver to Aspen ?",
    "What is the capital of Burma?",
    "Who was the first  American in space, and when?",
    "naïve café — what's that",
] * 3
MAKERS: dict[str, Callable[[list[str]], TextEncoder]] = {
    "words": lambda texts: train_words(texts, max_vocabulary=100),
    "word pieces": lambda texts: train_wordpieces(texts, vocab_size=320),
    "byte pairs": lambda texts: train_byte_pairs(texts, vocab_size=300),
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS.keys(), scope="module")
def make(request: pytest.FixtureRequest) -> Callable[[list[str]], TextEncoder]:
    maker: Callable[[list[str]], TextEncoder] = request.param
    return maker


def rows(encoder: TextEncoder, texts: list[str], **options: int) -> list[list[int]]:
    found = encoder.encode(texts, **options)
    return [found.ids[s : s + n].tolist() for s, n in zip(found.starts, found.lengths, strict=True)]


def test_transformers_reads_the_folder_and_gives_the_same_ids(
    make: Callable[[list[str]], TextEncoder], tmp_path: Path
) -> None:
    encoder = make(TEXTS)
    encoder.save(tmp_path, model_max_length=7)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == 7
    assert theirs.pad_token_id == encoder.pad_token_id
    assert rows(encoder, TEXTS) == theirs(TEXTS)["input_ids"]
    assert rows(encoder, TEXTS, max_length=7) == theirs(TEXTS, truncation=True)["input_ids"]
    again = TextEncoder.load(tmp_path)
    assert again.model_max_length == 7
    assert rows(again, TEXTS) == rows(encoder, TEXTS)


def test_the_order_of_texts_does_not_matter(make: Callable[[list[str]], TextEncoder], tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))  # noqa: S311
    definitions = []
    for texts in (TEXTS, shuffled):
        make(texts).save(tmp_path, model_max_length=9)
        definitions.append((tmp_path / "tokenizer.json").read_text())
    assert definitions[0] == definitions[1]


def test_what_is_cut_off_is_counted_or_kept_in_pieces(make: Callable[[list[str]], TextEncoder]) -> None:
    encoder = make(TEXTS)
    whole = encoder.encode(TEXTS[:2]).lengths
    cut = encoder.encode(TEXTS[:2], max_length=6)
    assert cut.truncated == sum(whole > 6) > 0
    assert cut.lengths.tolist() == [min(6, n) for n in whole]
    kept = encoder.encode(TEXTS[:2], max_length=6, keep_rest=True)
    around = 2 if encoder.token_id("cls_token") is not None else 0  # tokens around each piece
    assert (kept.lengths <= 6).all()
    assert (kept.lengths - around).sum() == (whole - around).sum()


@given(text=st.text(st.characters(), max_size=30))
def test_every_text_has_a_token_and_none_fails(text: str) -> None:
    encoder = _ENCODER
    ids = encoder.encode([text, "", "\ud800"])
    assert (ids.lengths >= 1).all()
    assert ids.ids.max() < encoder.vocab_size


_ENCODER = train_words(TEXTS, max_vocabulary=100)


def test_a_text_cannot_smuggle_special_tokens_in() -> None:
    encoder = train_wordpieces(TEXTS, vocab_size=320)
    (ids,) = rows(encoder, ["[SEP] a [MASK] b"])
    assert ids.count(encoder.token_id("sep_token") or -1) == 1
    assert encoder.token_id("mask_token") not in ids


def test_words_beyond_the_vocabulary_are_unknown_and_ties_alphabetical() -> None:
    encoder = train_words(["b a b c d"], max_vocabulary=4)
    assert rows(encoder, ["b a c d B"]) == [[2, 3, 1, 1, 2]]


@pytest.mark.parametrize("damage", ["{", '{"model": 1}'])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, damage: str) -> None:
    _ENCODER.save(tmp_path, model_max_length=9)
    (tmp_path / "tokenizer.json").write_text(damage)
    with pytest.raises(TokenizerError, match="not valid"):
        TextEncoder.load(tmp_path)


def test_a_tokenizer_without_padding_takes_the_end_token_or_is_refused(tmp_path: Path) -> None:
    encoder = train_byte_pairs(TEXTS, vocab_size=300)
    encoder.save(tmp_path, model_max_length=9)
    path = tmp_path / "tokenizer_config.json"
    path.write_text('{"eos_token": "<|endoftext|>"}')
    assert TextEncoder.load(tmp_path).pad_token_id == encoder.pad_token_id
    path.write_text("{}")
    with pytest.raises(TokenizerError, match="pad_token"):
        TextEncoder.load(tmp_path)
