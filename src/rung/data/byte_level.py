"""Byte-level BPE as `tokenizer.json`: the alphabet, the split and the four ways of choosing a vocabulary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from rung.data.words import count_words

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
"""In tokenizers trained here. The 256 bytes follow as 1..256, in the order of their stand-in characters."""
SMALLEST_VOCABULARY = 1 + 256

PRETOKENIZER_NAME = "qwen2"
"""What llama.cpp calls the regex below in a GGUF file (`tokenizer.ggml.pre`)."""
PRETOKENIZER_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's split: `PRETOKENIZE_REGEX` in transformers 5.23 `models/qwen2/tokenization_qwen2.py`; quoted as "original
regex from tokenizer.json" for LLAMA_VOCAB_PRE_TYPE_QWEN2 in llama.cpp `src/llama-vocab.cpp` (commit 00ad355e)."""

_CHARACTER_SHARE = 0.25


def learned_merges(texts: Iterable[str], vocab_size: int) -> str:
    """Definition of a BPE learned from `texts` (Sennrich et al. 2016); the order of the texts does not matter."""
    from tokenizers.trainers import BpeTrainer

    tokenizer = _untrained({}, [])
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair seen once would memorise that place instead of saving tokens elsewhere
        show_progress=False,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=list(byte_of_character()),
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    definition: str = tokenizer.to_str(pretty=True)
    return definition


def no_merges() -> str:
    """Definition of a tokenizer whose tokens are the 256 bytes."""
    return _define([])


def character_merges(texts: Iterable[str], vocab_size: int) -> str:
    """Definition that makes one token of each character of `texts`, the most frequent ones when not all fit.

    A character of three or four bytes also needs its beginnings as tokens; characters of one script share them.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return _define(_merges_of_characters(counts, vocab_size - SMALLEST_VOCABULARY))


def whole_words(texts: Iterable[str], vocab_size: int) -> str:
    """Definition with one token for each frequent word of `texts`: a piece of the split, its leading space included.

    A word in the vocabulary is one token (the model's `ignore_merges`), any other is spelled in its characters. What
    occurs once gets no token. Characters beyond ASCII take at most a quarter of the room, the most frequent first.
    """
    words = count_words(texts, _pieces)
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    room = vocab_size - SMALLEST_VOCABULARY
    merges = _merges_of_characters(characters, round(room * _CHARACTER_SHARE))
    stand_in = _stand_in_characters()
    repeated = sorted((word for word, count in words.items() if count > 1), key=lambda word: (-words[word], word))
    spelled = ("".join(stand_in[byte] for byte in word.encode()) for word in repeated)
    known = {*stand_in.values(), *map("".join, merges)}
    return _define(merges, [word for word in spelled if word not in known][: room - len(merges)])


def _pieces(text: str) -> list[str]:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(PRETOKENIZER_REGEX), behavior="isolated")
    return [piece for piece, _ in split.pre_tokenize_str(text)]


def _merges_of_characters(counts: Mapping[str, int], room: int) -> list[tuple[str, str]]:
    """At most `room` merges that build the most frequent characters of `counts` from their bytes."""
    stand_in = _stand_in_characters()
    merges: dict[tuple[str, str], None] = {}
    for character in sorted(counts, key=lambda character: (-counts[character], character)):
        symbols = [stand_in[byte] for byte in character.encode()]
        needed = [("".join(symbols[:end]), symbols[end]) for end in range(1, len(symbols))]
        missing = [merge for merge in needed if merge not in merges]
        if len(merges) + len(missing) > room:
            break
        merges.update(dict.fromkeys(missing))
    return list(merges)


def _define(merges: list[tuple[str, str]], words: Sequence[str] = ()) -> str:
    """Definition with the tokens of all bytes and `merges`, and of whole `words` in stand-in characters."""
    from tokenizers import AddedToken

    tokens = [END_OF_TEXT, *sorted(byte_of_character()), *map("".join, merges), *words]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = _untrained(vocabulary, merges, ignore_merges=bool(words))
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    definition: str = tokenizer.to_str(pretty=True)
    return definition


def _untrained(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], *, ignore_merges: bool = False
) -> tokenizers.Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZER_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def splits_like_ours(definition: str) -> bool:
    """Whether `WordTable` may stand in for the library: our regex, no normaliser, no added tokens but special ones."""
    given, ours = json.loads(definition), json.loads(_untrained({}, []).to_str())
    return all(given.get(part) == ours[part] for part in ("pre_tokenizer", "normalizer")) and all(
        token["special"] for token in given.get("added_tokens", [])
    )


@cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's stand-in characters for the 256 bytes (openai/gpt-2 `src/encoder.py`, bytes_to_unicode).

    Visible Latin-1 characters stand for themselves, the other bytes for U+0100 onwards in order.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    table = {chr(byte): byte for byte in visible}
    table.update({chr(0x100 + number): byte for number, byte in enumerate(hidden)})
    return table


@cache
def _stand_in_characters() -> dict[int, str]:
    return {byte: character for character, byte in byte_of_character().items()}
