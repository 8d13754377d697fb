"""Text from a model or a file on its way to a terminal, which takes some characters for commands.

An escape sequence in an answer could rewrite what stands on the screen, set the clipboard or rename the window.
"""

from __future__ import annotations

from typing import TextIO

_KEPT = {ord("\n"), ord("\t")}
_PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
_SHOWN = {code: picture for code, picture in _PICTURES.items() if code not in _KEPT}
"""Control characters as Unicode's pictures of them; those of ISO 6429's upper half have none."""


def without_commands(text: str) -> str:
    """`text` with its control characters made visible; line ends and tabs stay."""
    return text.translate(_SHOWN)


def write(text: str, stream: TextIO) -> None:
    """Write at once: to a terminal what it cannot obey, anywhere else the very text."""
    stream.write(without_commands(text) if stream.isatty() else text)
    stream.flush()
