"""Text while it is generated: no half characters, and nothing shown that may turn out to begin a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class TextDecoder(Protocol):
    """Turns tokens into text piece by piece; `rung.data.stream_decoder.StreamDecoder` is one."""

    def push(self, token_id: int) -> str:
        """Add a token and return the characters that are now complete."""
        ...

    def finish(self) -> str:
        """Return what is left of a character that was begun."""
        ...


class StopStrings:
    """Passes text on until one of `stop` appears, holding back the longest ending that may become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.found = False
        """Whether a stop string appeared. Nothing is passed on afterwards."""

    def push(self, text: str) -> str:
        """Add text; return what is now certain to stand before any stop string."""
        if self.found:
            return ""
        text = self._held + text
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        certain = len(text) - self._longest_beginning(text)
        self._held = text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """Return what was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self, text: str) -> int:
        """Length of the longest ending of `text` with which some stop string begins."""
        longest = min(len(text), max((len(stop) - 1 for stop in self._stop), default=0))
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0


class TextStream:
    """One request's tokens as text: decoded, cut at stop strings."""

    def __init__(self, decoder: TextDecoder, stop: Sequence[str]) -> None:
        self._decoder = decoder
        self._stop = StopStrings(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string appeared."""
        return self._stop.found

    def push(self, token_id: int) -> str:
        """Add a token; return the text that is now certain."""
        return self._stop.push(self._decoder.push(token_id))

    def finish(self) -> str:
        """Return the rest of the text: a broken character at the end, and what was held back."""
        return self._stop.push(self._decoder.finish()) + self._stop.finish()
