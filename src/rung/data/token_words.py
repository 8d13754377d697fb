"""What tokens are to words: what each reads as, and which of them go on with the word of the token before."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rung.data.spelling import spelling_of
from rung.errors import TokenizerError


class WordJoints(NamedTuple):
    """Two tokens that follow one another are of one word if the first `stays_open` and the second `goes_on`.

    Both are (vocab_size,) bool.
    """

    stays_open: NDArray[np.bool_]
    goes_on: NDArray[np.bool_]


class ReadableToken(NamedTuple):
    """A token as people read it, with the space that it brings, if so. `joined`: it takes a space before it away."""

    text: str
    joined: bool


class TokenWords:
    """The words of a tokenizer in one of two styles.

    - WordPiece: a token that goes on with a word begins with a prefix, mostly `##`. Marks are words of their own;
    - spellings that hold the space before a word (`rung.data.spelling`: byte-level BPE, pieces with byte fallback):
      letters, digits and parts of characters go on with a word that ends in such, other marks never do. (RoBERTa's own
      whole-word masking asked for the space alone, so that `(so),` was one word.)

    Of other tokenizers, every token is taken for a word as it stands, and `joints` are refused.
    """

    def __init__(self, definition: str, *, added: Mapping[str, int]) -> None:
        """Take the text of a `tokenizer.json`, and the ids of `added` tokens, which are spelled as they read."""
        parts: dict[str, Any] = json.loads(definition)
        self._prefix = None
        if parts["model"].get("type") == "WordPiece":
            self._prefix = parts["model"].get("continuing_subword_prefix") or None
        self._spelling, self._added = spelling_of(parts), added

    def readable(self, token: str) -> ReadableToken:
        """What `token` of the vocabulary reads as; bytes that are no whole character are U+FFFD."""
        if token in self._added:
            return ReadableToken(token, joined=False)
        if self._continues(token):
            return ReadableToken(token.removeprefix(str(self._prefix)), joined=True)
        spelled = None if self._spelling is None else self._spelling.bytes_of(token)
        if spelled is None:
            return ReadableToken(token, joined=False)
        return ReadableToken(spelled.decode(errors="replace"), joined=False)

    def joints(self, tokens: Mapping[str, int]) -> WordJoints:
        """Where words begin among `tokens` (token to id). TokenizerError for tokenizers that do not tell."""
        if self._prefix is None and self._spelling is None:
            raise TokenizerError("this tokenizer does not tell where words begin", hint="set masking.whole_words=false")
        found = WordJoints(*(np.zeros(1 + max(tokens.values()), np.bool_) for _ in WordJoints._fields))
        for token, number in tokens.items():
            if self._prefix is not None:
                found.stays_open[number], found.goes_on[number] = True, self._continues(token)
            elif token not in self._added and self._spelling is not None:
                text = (self._spelling.bytes_of(token) or b" ").decode(errors="replace")
                found.stays_open[number], found.goes_on[number] = _in_word(text[-1:]), _in_word(text[:1])
        return found

    def _continues(self, token: str) -> bool:
        return self._prefix is not None and token.startswith(self._prefix) and token != self._prefix


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" or character == "\N{REPLACEMENT CHARACTER}"
