"""What tokens are to words: against words found in the text itself."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.masked_batches import Masking
from rung.data.pack import IGNORE_INDEX
from rung.data.text_encoder import TextEncoder, train_byte_pairs, train_words
from rung.data.wordpiece import train_wordpieces
from rung.errors import TokenizerError

TEXTS = [
    "the quick (brown) fox's naïve café, 12 mice; don't!",
    "ab12 cd34\tEF\n\nquickly browner  foxes 🙂 東京 \u0939\u093f\u0928\u094d\u0926\u0940",
]


def with_mask(encoder: TextEncoder) -> TextEncoder:
    """The byte-level tokenizer with a mask of RoBERTa's kind."""
    definition = json.loads(encoder._definition)
    mask = {"id": encoder.vocab_size, "content": "<mask>", "special": True, "lstrip": True, "rstrip": False}
    definition["added_tokens"].append({**mask, "normalized": False, "single_word": False})
    end = encoder.token(encoder.eos_token_id)
    return TextEncoder(json.dumps(definition), {"eos_token": end, "mask_token": "<mask>"}, where="test")


BYTES = with_mask(train_byte_pairs(TEXTS * 3, vocab_size=330))
PIECES = train_wordpieces(TEXTS * 3, vocab_size=130)


def of_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def words_of(encoder: TextEncoder, text: str) -> list[list[int]]:
    """Token ids of `text`, those of one word together."""
    joints, found = encoder.word_joints(), list[list[int]]()
    ids = encoder.encode_ragged([text])[0].tolist()
    for place, number in enumerate(ids):
        if place and joints.stays_open[ids[place - 1]] and joints.goes_on[number]:
            found[-1].append(number)
        else:
            found.append([number])
    return found


@given(text=st.text(st.sampled_from("abfoxquick 12(),.'!ïé\u0939\u093f\n\t"), max_size=40))
def test_the_words_of_byte_pairs_are_runs_of_letters_and_digits(text: str) -> None:
    """Where the last character before a token and its first one are both of a word, and nowhere else."""
    joints, ids = BYTES.word_joints(), BYTES.encode_ragged([text])[0].tolist()
    ends = [len(BYTES.decode(ids[: place + 1])) for place in range(len(ids))]
    for place in range(1, len(ids)):
        before, after = BYTES.decode(ids[:place]), BYTES.decode(ids[: place + 1])
        if "\N{REPLACEMENT CHARACTER}" in before + after:
            continue  # a character of several tokens
        joined = joints.stays_open[ids[place - 1]] and joints.goes_on[ids[place]]
        assert joined == (of_word(text[ends[place - 1] - 1]) and of_word(text[ends[place - 1]]))


def test_parts_of_a_letter_are_one_word() -> None:
    (tokens,) = words_of(BYTES, "ζωή")
    assert len(tokens) == 6  # bytes


def test_words_of_a_sentence() -> None:
    found = [BYTES.decode(tokens) for tokens in words_of(BYTES, "the browner (fox) don't, café\nab12")]
    assert found == ["the", " browner", " (", "fox", ")", " don", "'t", ",", " café", "\n", "ab12"]
    pieces = [PIECES.decode(tokens) for tokens in words_of(PIECES, "the browner (fox)")]
    assert pieces == ["the", "browner", "(", "fox", ")"]


def test_a_word_is_hidden_whole() -> None:
    encoder = BYTES
    ids = encoder.encode_ragged(["quickly browner foxes cd34 " * 40])[0].astype(np.int64)[None]
    joints = encoder.word_joints()
    _, labels = Masking(encoder, seed=1, share=0.4).hide(ids, np.ones_like(ids, dtype=bool), np.arange(1))
    hidden = labels[0] != IGNORE_INDEX
    follows = joints.stays_open[ids[0, :-1]] & joints.goes_on[ids[0, 1:]]
    assert follows.sum() > 40
    assert (hidden[1:] == hidden[:-1])[follows].all()
    assert not (hidden[1:] == hidden[:-1])[~follows].all()


def test_tokens_read_as_they_stand_in_a_text() -> None:
    numbers = BYTES.encode_ragged([" fox"])[0].tolist()
    assert "".join(BYTES.readable(number).text for number in numbers) == " fox"
    assert BYTES.readable(BYTES.eos_token_id) == ("<|endoftext|>", False)
    first, *rest = PIECES.encode_ragged(["foxthe"])[0].tolist()
    assert rest
    assert not PIECES.readable(first).joined
    assert all(PIECES.readable(number).joined for number in rest)
    assert "".join(PIECES.readable(number).text for number in (first, *rest)) == "foxthe"


def test_a_tokenizer_that_does_not_tell_is_refused() -> None:
    words = train_words(TEXTS, max_vocabulary=100)
    with pytest.raises(TokenizerError, match="where words begin"):
        words.word_joints()
    assert words.readable(words.encode_ragged(["fox"])[0][0]) == ("fox", False)


def test_white_space_before_a_mask_is_its_own_where_the_tokenizer_says_so() -> None:
    mask = BYTES.token_id("mask_token")
    assert mask is not None
    assert BYTES.strips_left(mask)
    assert not BYTES.strips_left(BYTES.eos_token_id)
    assert not BYTES.strips_left(5)
