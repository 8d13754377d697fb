"""One tokenizer for both sides: any text comes back, and transformers reads the same ids from the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.pair_tokenizer import PairTokenizer, choose_pair_vocabulary, train_pair_tokenizer
from rung.errors import TokenizerError

TEXTS = ["A dog runs.", "Ein Hund läuft.", "A dog sleeps, the dog runs.", "Der Hund schläft 🐕"] * 5


@pytest.fixture(scope="module")
def tokenizer() -> PairTokenizer:
    return train_pair_tokenizer(TEXTS, vocab_size=300)


@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_comes_back(tokenizer: PairTokenizer, text: str) -> None:
    encoded = tokenizer.encode([text])
    assert tokenizer.decode_batch([encoded.ids.tolist()]) == [text]
    assert encoded.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id not in encoded.ids


def test_the_first_word_is_the_word_it_is_elsewhere(tokenizer: PairTokenizer) -> None:
    first, second = (tokenizer.encode([text]).ids.tolist()[:-1] for text in ("dog", "A dog"))
    assert second[-len(first) :] == first


def test_special_tokens_are_never_made_from_text(tokenizer: PairTokenizer) -> None:
    text = "a <pad> and <|endoftext|>"
    ids = tokenizer.encode([text]).ids.tolist()
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1
    assert tokenizer.decode_batch([ids]) == [text]


def test_the_folder_gives_the_same_tokenizer_here_and_in_transformers(tokenizer: PairTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path, model_max_length=64)
    ids = tokenizer.encode(TEXTS[:1]).ids.tolist()
    again = PairTokenizer.load(tmp_path)
    assert again.encode(TEXTS[:1]).ids.tolist() == ids
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXTS[0])["input_ids"] == ids
    assert theirs.decode(ids, skip_special_tokens=True) == TEXTS[0]
    assert (theirs.pad_token_id, theirs.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)


def test_the_order_of_texts_does_not_matter(tokenizer: PairTokenizer) -> None:
    assert train_pair_tokenizer(TEXTS[::-1], vocab_size=300).definition == tokenizer.definition


def test_sentinels_are_the_last_tokens_and_never_text(tokenizer: PairTokenizer, tmp_path: Path) -> None:
    made = train_pair_tokenizer(TEXTS, vocab_size=303, num_sentinels=3)
    size = tokenizer.vocab_size
    assert tokenizer.sentinels == ()
    assert made.sentinels == (size, size + 1, size + 2)
    text = "a <extra_id_0> dog"
    ids = made.encode([text]).ids.tolist()
    assert ids == tokenizer.encode([text]).ids.tolist()  # all other tokens are as they were
    assert made.decode_batch([[size, *ids, size + 2]]) == [text]
    made.save(tmp_path, model_max_length=64)
    assert PairTokenizer.load(tmp_path).sentinels == made.sentinels
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.decode([size, *ids, size + 2], skip_special_tokens=True) == text
    with pytest.raises(TokenizerError, match="too small"):
        train_pair_tokenizer(TEXTS, vocab_size=260, num_sentinels=3)


def test_bad_tokenizers_are_refused(tokenizer: PairTokenizer, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="too small"):
        train_pair_tokenizer(TEXTS, vocab_size=257)
    tokenizer.save(tmp_path, model_max_length=64)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("eos_token", "no_token"), encoding="utf-8")
    with pytest.raises(TokenizerError, match="eos_token"):
        PairTokenizer.load(tmp_path)


@pytest.mark.parametrize(("num_bytes", "size"), [(0, 512), (4_000_000, 4096), (10**9, 32_768)])
def test_the_vocabulary_grows_with_the_text(num_bytes: int, size: int) -> None:
    assert choose_pair_vocabulary(num_bytes) == size
