"""WordPiece: what the library's own model gives, whatever the order of texts, and where words begin."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from rung.data.text_encoder import TextEncoder
from rung.data.wordpiece import SPECIAL, choose_vocab_size, train_wordpieces
from rung.errors import TokenizerError

TEXTS = [
    "The players were playing; the player played on.",
    "Zoë liebt Äpfel, Zoé aime les pommes.",
    "東京は大きい。 Tokyo is big 🙂🙂",
    "مرحبا بالعالم and hello worlds, wording the words' word-play",
] * 4


def pieces(encoder: TextEncoder, text: str) -> list[str]:
    ids, _ = encoder.encode_ragged([text])
    return [encoder.token(number) for number in ids.tolist()]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return train_wordpieces(TEXTS, vocab_size=300)


def test_the_order_of_texts_changes_nothing_nor_does_another_time() -> None:
    """The trainer of the library alone gives another vocabulary each time: it lists ## characters by a hash table."""
    found = {
        train_wordpieces(random.Random(seed).sample(TEXTS, len(TEXTS)), vocab_size=200).sha256  # noqa: S311
        for seed in range(4)
    }
    assert len(found) == 1


def test_words_are_lower_cased_and_accents_stay(encoder: TextEncoder) -> None:
    assert pieces(encoder, "ZOË") == pieces(encoder, "zoë") != pieces(encoder, "zoe")
    assert encoder.decode(encoder.encode_ragged(["The Players, playing"])[0].tolist()) == "the players, playing"


def test_a_composed_and_a_decomposed_accent_are_one(encoder: TextEncoder) -> None:
    assert pieces(encoder, "Zoe\u0308") == pieces(encoder, "Zoë")


def test_unknown_characters_make_their_word_unknown(encoder: TextEncoder) -> None:
    assert pieces(encoder, "the xǯx players")[1] == "[UNK]"


def test_rare_characters_give_way_in_a_small_vocabulary() -> None:
    texts = ["abab abab", *(chr(0x3B1 + number) for number in range(24))]
    small = train_wordpieces(texts * 2, vocab_size=64)
    assert small.vocab_size <= 64
    assert pieces(small, "ab ψ") == ["ab", "[UNK]"] or pieces(small, "ab")[0] != "[UNK]"


def test_word_borders_are_those_of_the_pieces(encoder: TextEncoder) -> None:
    joints = encoder.word_joints()
    assert joints.goes_on.shape == joints.stays_open.shape == (encoder.vocab_size,)
    assert joints.stays_open.all()
    for number in range(encoder.vocab_size):
        assert joints.goes_on[number] == (encoder.token(number).startswith("##") and encoder.token(number) != "##")


@given(text=st.text(max_size=60))
def test_ids_are_those_of_transformers_and_never_special(text: str) -> None:
    ids, lengths = ENCODER.encode_ragged([text, "", text])
    assert lengths[0] == lengths[2]
    assert lengths[1] == 0
    special = set(ENCODER.special_ids()) - {ENCODER.token_id("unk_token")}
    assert not special & set(ids.tolist())
    if not any(token in text for token in SPECIAL):
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert ids[: lengths[0]].tolist() == theirs()(clean, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("code", [*range(0x21), 0x7F, 0x85, 0xA0, 0xAD, 0x200B, 0x200D, 0x2028, 0x3000, 0x308, 0xFEFF])
def test_words_are_found_as_the_library_finds_them(code: int) -> None:
    """Each distinct word is encoded once; what counts as a border must be the library's."""
    text = f"the{chr(code)}player {chr(code)} played\n{chr(code)}on"
    assert ENCODER.encode_ragged([text])[0].tolist() == theirs()(text, add_special_tokens=False)["input_ids"]


ENCODER = train_wordpieces(TEXTS, vocab_size=300)
_THEIRS: list[transformers.PreTrainedTokenizerBase] = []


def theirs() -> transformers.PreTrainedTokenizerBase:
    return _THEIRS[0]


@pytest.fixture(autouse=True, scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder: Path = tmp_path_factory.mktemp("wordpiece")
    ENCODER.save(folder, model_max_length=64)
    _THEIRS[:] = [transformers.AutoTokenizer.from_pretrained(folder)]


def test_roles_are_those_of_transformers(encoder: TextEncoder) -> None:
    for role in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"):
        assert encoder.token_id(role) == getattr(theirs(), f"{role}_id")
    assert theirs()("the [MASK] played")["input_ids"].count(theirs().mask_token_id) == 1


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    with pytest.raises(TokenizerError, match="too small"):
        train_wordpieces(TEXTS, vocab_size=63)


def test_text_without_words_still_gives_a_tokenizer() -> None:
    empty = train_wordpieces(["", "   "], vocab_size=64)
    assert empty.vocab_size == len(SPECIAL)
    assert np.array_equal(empty.encode(["anything"]).ids, [2, 1, 3])


def test_the_vocabulary_grows_with_the_text() -> None:
    assert [choose_vocab_size(size) for size in (0, 100_000, 10**7, 10**8, 10**9)] == [1024, 2000, 8192, 12_500, 32_768]
