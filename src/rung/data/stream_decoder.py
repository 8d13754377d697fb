"""Text from tokens that come one at a time, where a character may be spread over several of them."""

from __future__ import annotations

import codecs

from rung.data.tokenizer import Tokenizer


class StreamDecoder:
    """Turns token ids into text while they are generated, never giving out half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Add one token; return the characters that are now complete (perhaps none)."""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        """Return U+FFFD for a character that was begun and not completed; all pieces together equal `decode`."""
        return self._utf8.decode(b"", final=True)
