"""Encoding with the tokenizers library: many texts at once, and what is wrong with a text that it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rung.data.words import Ragged
from rung.errors import TokenizerError

if TYPE_CHECKING:
    import tokenizers


def encode_in_library(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> Ragged:
    """Token ids of all texts, and how many each has. TokenizerError for a text that UTF-8 cannot express."""
    try:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    except TypeError as error:
        raise unencodable(texts) from error
    ids = [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
    return np.concatenate([np.empty(0, np.uint32), *ids]), np.fromiter(map(len, ids), np.int64, len(ids))


def library_without_split(definition: str) -> Callable[[Sequence[str]], Ragged]:
    """What encodes words that are already parted."""
    from tokenizers import Tokenizer, pre_tokenizers

    tokenizer = Tokenizer.from_str(definition)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.encode_special_tokens = True
    return partial(encode_in_library, tokenizer)


def unencodable(texts: Sequence[str]) -> TokenizerError:
    """The error for texts that the library did not take."""
    for number, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return TokenizerError(
                f"text {number} holds a lone surrogate (U+{ord(text[error.start]):04X}), which UTF-8 cannot express",
                where=f"character {error.start:,}",
                hint="replace it before encoding, for instance by U+FFFD",
            )
    return TokenizerError("the texts to encode must be strings")
