"""What flows through the data room: passages as read, documents as kept, rejections as counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

EXCERPT_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of text that survived cleaning.

    `id` is the first 16 hexadecimal digits of `sha256` and the document's place, so it is unique within a corpus.
    `source` names file and position (`novel.txt:line 120`, `reviews.jsonl:row 7`). `continues` says that the text
    directly follows the previous document of the same selection: joined, the two read as they stood in the source.
    """

    id: str
    text: str
    source: str
    sha256: str
    continues: bool


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of text as a reader found it: valid UTF-8, newlines already `\\n`.

    `file` numbers the source file within its group, `row` counts lines (text formats) or rows (tables) from 1.
    `follows` is true when the passage directly continues the one before it in the same source.
    """

    text: bytes
    file: int
    row: int
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something that was read, or could not be, and is not used; `row` 0 means the whole file."""

    file: int
    row: int
    reason: str
    excerpt: str = ""
    num_bytes: int = 0


def excerpt(text: bytes | str) -> str:
    """The first characters of `text` for a person to recognise it by; bytes that are no UTF-8 show as escapes."""
    head = text[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    head = head[:EXCERPT_CHARACTERS]
    return head.encode("utf-8", "backslashreplace").decode("utf-8")


def documents_at_once(documents: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Documents in lists of at least so many characters together, except the last."""
    some: list[str] = []
    size = 0
    for text in documents:
        some.append(text)
        size += len(text)
        if size >= characters:
            yield some
            some, size = [], 0
    if some:
        yield some
