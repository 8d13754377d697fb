"""Tokenizers against transformers and the tokenizers library, and the round trips nobody else promises."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from rung.data.byte_level import PRETOKENIZER_REGEX, character_merges
from rung.data.stream_decoder import StreamDecoder
from rung.data.tokenizer import Tokenizer, TokenizerKind, train_tokenizer
from rung.data.words import _words_pattern, is_plain
from rung.errors import TokenizerError

KINDS: list[TokenizerKind] = ["bpe", "byte", "character", "word"]
TEXT = (
    "It's the nightingale, and not the lark, that's what we'd say; I'll go. We've 12 naïve façades, 3.14 and 2024.\n\n"
    "  def f(x):\n\treturn  x + 1\n\n\nПривет, мир! Ελληνικά. 今日は世界、こんにちは。 שלום! 👋🏽 e\u0301\r\n"
) * 20
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
"""Every character that UTF-8 can express."""
TROUBLE = st.text(
    alphabet="'sSſtreEvVlLmMdDKaé1Ⅷ² \u00a0\u2003\u0085\x1c\t\n\r.,!<|>endoftx\u0301\u200b漢ー𝐀😀𠀀\U0010ffff\u0378"
)
"""Where a split by regex goes wrong first: contractions, spaces, marks, numbers, characters beyond the basic plane."""


@cache
def trained(kind: TokenizerKind) -> Tokenizer:
    return train_tokenizer(iter([TEXT]), kind=kind, vocab_size=400)


def random_texts(count: int) -> list[str]:
    """Texts of all scripts and of awkward spacing, always the same."""
    rng = random.Random(7)  # noqa: S311
    ranges = [(0x20, 0x7E)] * 6 + [(0x9, 0xD), (0xA0, 0x24F), (0x370, 0x52F), (0x2000, 0x2070), (0x4E00, 0x4F00)]
    ranges += [(0x1F300, 0x1F650), (0x10000, 0x10400), (0, 0xD7FF)]
    return [
        "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randrange(60))) for _ in range(count - 2)
    ] + ["", "<|endoftext|>"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", [None, "qwen3", "llama"])
def test_transformers_reads_the_folder_and_gives_the_same_ids(
    kind: TokenizerKind, model_type: str | None, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoTokenizer

    ours = trained(kind)
    ours.save(tmp_path, model_max_length=77)
    if model_type:  # AutoTokenizer picks its class by the model beside the tokenizer
        AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = random_texts(1000)
    ids = theirs(texts, split_special_tokens=True)["input_ids"]
    assert [ours.encode(text) for text in texts] == ids
    assert [array.tolist() for array in ours.encode_batch(texts)] == ids
    assert theirs.batch_decode(ids) == texts
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.pad_token_id) == (ours.eos_token_id,) * 3
    assert (len(theirs), theirs.model_max_length) == (ours.vocab_size, 77)


def test_bpe_is_what_the_library_trains() -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, trainers

    theirs = Library(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZER_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        min_frequency=2,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([TEXT], trainer)
    ours = train_tokenizer([TEXT], kind="bpe", vocab_size=350)
    for text in [TEXT, *random_texts(200)[:-1]]:
        assert ours.encode(text) == theirs.encode(text).ids


def test_the_split_is_that_of_qwen2() -> None:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    assert PRETOKENIZER_REGEX == PRETOKENIZE_REGEX
    assert trained("bpe").pretokenizer_name == "qwen2"


def test_training_does_not_depend_on_the_order_of_texts() -> None:
    paragraphs = TEXT.split("\n")
    forward = train_tokenizer(paragraphs, kind="bpe", vocab_size=400)
    backward = train_tokenizer(paragraphs[::-1], kind="bpe", vocab_size=400)
    assert forward.sha256 == backward.sha256


@pytest.mark.parametrize("kind", KINDS)
@given(text=ANY_TEXT | TROUBLE)
@example(text="<|endoftext|>")
def test_decoding_gives_the_text_back_and_no_text_makes_a_special_token(kind: TokenizerKind, text: str) -> None:
    tokenizer = trained(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id not in ids


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary())
def test_any_bytes_survive(kind: TokenizerKind, data: bytes) -> None:
    tokenizer = trained(kind)
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@given(text=ANY_TEXT)
def test_bytes_of_valid_text_are_encoded_like_the_text(text: str) -> None:
    tokenizer = trained("bpe")
    assert tokenizer.encode_bytes(text.encode()) == tokenizer.encode(text)


@pytest.mark.parametrize("kind", ["bpe", "word"])
@given(texts=st.lists(ANY_TEXT | TROUBLE | st.just(TEXT[:100])))
def test_the_word_table_gives_the_ids_of_the_library(kind: TokenizerKind, texts: list[str]) -> None:
    tokenizer = trained(kind)
    batch = tokenizer.encode_batch(texts)
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in texts]
    assert all(ids.dtype == np.uint32 for ids in batch)


def test_words_are_the_pieces_of_the_library_around_every_character() -> None:
    """Splits, not ids: ids show a wrong split only where a merge would have crossed it."""
    split = pre_tokenizers.Split(Regex(PRETOKENIZER_REGEX), "isolated")
    template = "{0}e a{0}b {0} 1{0}\nx'{0}x'{0}e'r{0}x'v{0}x'l{0}x\n{0}\nx {0}.{0}  {0}"
    codes = [*range(0xD800), *range(0xE000, 0x10000), *range(0x1F000, 0x20010)]
    texts = [text for text in map(template.format, map(chr, codes)) if is_plain(text)]
    assert len(texts) > 60_000
    find_words = _words_pattern().findall
    assert [text for text in texts if find_words(text) != [piece for piece, _ in split.pre_tokenize_str(text)]] == []


def test_an_overfull_word_table_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rung.data.words._MOST_WORDS", 3)
    tokenizer = train_tokenizer([TEXT], vocab_size=300)
    for text in ["some other words than", "those that came before", "and some other words", "to be here"]:
        assert tokenizer.encode_batch([text])[0].tolist() == tokenizer.encode(text)


def test_every_character_of_the_text_is_a_token_and_an_unseen_one_is_bytes() -> None:
    tokenizer = train_tokenizer(["héllo 漢"], kind="character", vocab_size=10_000)
    assert [tokenizer.token_bytes(i).decode() for i in tokenizer.encode("é漢l h")] == ["é", "漢", "l", " ", "h"]
    assert len(tokenizer.encode("字")) > 1
    assert tokenizer.vocab_size == 257 + 1 + 2  # é; the two beginnings of 漢 are one more token than the character


def test_too_many_characters_keep_the_most_frequent() -> None:
    tokenizer = train_tokenizer(["ééé" + "ññ" + "ü"], kind="character", vocab_size=259)
    assert [len(tokenizer.encode(character)) for character in "éñü"] == [1, 1, 2]
    assert json.loads(character_merges(["é"], 257))["model"]["merges"] == []


def test_frequent_words_are_tokens_and_others_are_spelled_in_characters() -> None:
    tokenizer = train_tokenizer(["the cat saw the cat. the é dog saw"], kind="word", vocab_size=10_000)
    parts = [tokenizer.token_bytes(i).decode() for i in tokenizer.encode("the cat saw the  dog é")]
    assert parts == [*"the", " cat", " saw", " the", " ", *" dog", " ", "é"]
    assert tokenizer.vocab_size == 257 + 1 + 3  # é; " the", " cat", " saw": "the" and "." occur once, a space is a byte


def test_a_small_vocabulary_keeps_the_most_frequent_words() -> None:
    text = "a" + " one" * 5 + " two" * 4 + " three" * 3 + " éé"
    tokenizer = train_tokenizer([text], kind="word", vocab_size=259)
    assert [len(tokenizer.encode(word)) for word in (" one", " two", " three", "é")] == [1, 1, 6, 2]
    assert train_tokenizer([text], kind="word", vocab_size=257).encode(" one") == trained("byte").encode(" one")


@given(text=TROUBLE)
def test_any_text_makes_a_word_tokenizer_that_gives_it_back(text: str) -> None:
    tokenizer = train_tokenizer([text, text], kind="word", vocab_size=300)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.sha256 == train_tokenizer([text, text], kind="word", vocab_size=300).sha256


def test_byte_tokens_are_the_bytes() -> None:
    tokenizer = trained("byte")
    assert tokenizer.vocab_size == 257
    assert len(tokenizer.encode(TEXT)) == len(TEXT.encode())


def test_a_small_text_says_what_vocabulary_it_reached() -> None:
    told: list[str] = []

    class Listener:
        def task(self, *_: object) -> object:
            from contextlib import nullcontext

            return nullcontext(lambda _amount: None)

        def say(self, message: str) -> None:
            told.append(message)

    tokenizer = train_tokenizer(["abababab"], vocab_size=5000, progress=Listener())  # type: ignore[arg-type]
    assert tokenizer.vocab_size < 270
    assert str(tokenizer.vocab_size) in told[0]


@given(ids=st.lists(st.integers(0, 399)))
def test_streaming_gives_whole_characters_that_join_to_the_text(ids: list[int]) -> None:
    tokenizer = trained("bpe")
    stream = StreamDecoder(tokenizer)
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids)


def test_streaming_never_gives_half_a_character() -> None:
    tokenizer = trained("byte")
    stream = StreamDecoder(tokenizer)
    assert [stream.push(token_id) for token_id in tokenizer.encode("é!漢")] == ["", "é", "!", "", "", "漢"]


@given(ids=st.lists(st.integers(0, 399)))
def test_decoding_any_ids_is_what_the_library_decodes(ids: list[int]) -> None:
    from tokenizers import Tokenizer as Library

    theirs = Library.from_str(trained("bpe")._definition)
    assert trained("bpe").decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_saving_and_loading_changes_nothing(tmp_path: Path) -> None:
    trained("bpe").save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.sha256, loaded.eos_token_id, loaded.pretokenizer_name) == (trained("bpe").sha256, 0, "qwen2")
    assert loaded.encode(TEXT) == trained("bpe").encode(TEXT)


def test_a_real_byte_level_tokenizer_loads(tmp_path: Path) -> None:
    """Of another make: other split, a normaliser, an added token that is not special, ids in another order."""
    from transformers import Qwen2Tokenizer

    symbols = [bytes([b]) for b in range(256)]
    vocabulary = json.loads(trained("byte")._definition)["model"]["vocab"]
    vocabulary = {
        token: number for number, token in enumerate(sorted(vocabulary.keys() - {"<|endoftext|>"}, reverse=True))
    }
    theirs = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    theirs.add_tokens(["<tool>"])
    theirs.save_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path)
    text = "a <tool> e\u0301 é\n"
    assert ours.encode(text) == theirs(text)["input_ids"]
    assert [array.tolist() for array in ours.encode_batch([text, ""])] == [ours.encode(text), []]
    assert ours.decode(ours.encode("<tool> é")) == "<tool> é"
    assert {ours.token_bytes(i) for i in range(256)} == set(symbols)
    assert ours.pretokenizer_name is None


def flip(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "no tokenizer_config.json"),
        (lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff\xfe"), "not UTF-8"),
        (lambda folder: flip(folder / "tokenizer.json", '"model"', '"model'), "not JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), "not a byte-level BPE"),
        (lambda folder: flip(folder / "tokenizer.json", '"BPE"', '"WordLevel"'), "not a byte-level BPE"),
        (lambda folder: flip(folder / "tokenizer.json", '"¾": ', '"¾a": '), "not in the vocabulary"),
        (lambda folder: flip(folder / "tokenizer.json", '"Ġlark": ', '"漢": '), "stands for no bytes|out of voc"),
        (lambda folder: flip(folder / "tokenizer.json", '"À": ', '"À": 9'), "gaps"),
        (lambda folder: flip(folder / "tokenizer.json", '"merges": [', '"merges": [["a", "漢"],'), "not valid"),
        (lambda folder: flip(folder / "tokenizer_config.json", '"eos_token"', '"eos_tokem"'), "eos_token"),
        (lambda folder: flip(folder / "tokenizer_config.json", '"eos_token": "<|e', '"eos_token": "<|f'), "missing"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("3"), "not a JSON object"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), "not JSON"),
    ],
)
def test_damage_is_named(damage: Callable[[Path], object], problem: str, tmp_path: Path) -> None:
    trained("bpe").save(tmp_path)
    damage(tmp_path)
    with pytest.raises(TokenizerError, match=problem) as caught:
        Tokenizer.load(tmp_path)
    assert caught.value.where is not None
    assert str(tmp_path) in caught.value.where


def test_a_lone_surrogate_is_named() -> None:
    for call in (lambda: trained("bpe").encode("ab\ud800"), lambda: trained("bpe").encode_batch(["é", "ab\ud800"])):
        with pytest.raises(TokenizerError, match=r"lone surrogate \(U\+D800\)"):
            call()


def test_too_small_a_vocabulary_and_a_foreign_id_are_refused() -> None:
    with pytest.raises(TokenizerError, match="too small"):
        train_tokenizer(["text"], vocab_size=256)
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        trained("byte").decode([257])
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        trained("byte").decode([-1])
