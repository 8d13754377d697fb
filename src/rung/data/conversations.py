"""Conversations to learn from: JSON Lines (or a JSON array) in the four layouts that instruction data come in.

    OpenAI messages    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    ShareGPT           {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}
    Alpaca             {"instruction": "...", "input": "...", "output": "..."}
    prompt/completion  {"prompt": "...", "completion": "..."}

The layout is recognised by its keys and must be the same in all rows. What a network could not learn from as it stands
(two user turns in a row, an empty answer, an unknown role) is left out and named, and many such rows are an error:
nothing is repaired by guessing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rung.data.documents import Rejection
from rung.data.read import COMPRESSIONS, READ_ERRORS, EncodedReader, SourceFile, open_plain
from rung.data.rows import parsed_json_lines
from rung.data.unusable import UnusableRows
from rung.errors import DataError
from rung.progress import SILENT, Progress

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)
_NAMES_OF_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",  # OpenAI's newer name for it
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
_JSON_LINES, _JSON = (".jsonl", ".ndjson"), ".json"
_BLOCK = 1 << 20
_KINDS_HINT = "conversations are .jsonl or .json files, each also with .gz .zst .xz"
_ROLES_HINT = "roles are system, user and assistant; ShareGPT's human and gpt are understood too"


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, and what is said."""

    role: Role
    content: str

    def to_json(self) -> dict[str, str]:
        """As OpenAI's interfaces write it, and as chat templates read it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Conversation:
    """Turns in their order: perhaps a system message, then user and assistant by turns."""

    messages: tuple[Message, ...]

    @cached_property
    def id(self) -> str:
        """A name that comes from the content: 20 hexadecimal digits."""
        spoken = json.dumps([[message.role, message.content] for message in self.messages])
        return hashlib.sha256(spoken.encode()).hexdigest()[:20]

    @property
    def text(self) -> str:
        """All that is said, for comparing conversations."""
        return "\n".join(message.content for message in self.messages)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What stands before the last answer."""
        return self.messages[: self._last_answer]

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[self._last_answer].content

    @property
    def _last_answer(self) -> int:
        return max(number for number, message in enumerate(self.messages) if message.role == "assistant")


@dataclass(frozen=True)
class Conversations:
    """Conversations in the order of their ids, so that the order of files and rows changes nothing; each once.

    `repeated` counts the rows that said what another had said already, word for word; `remarks`: sentences about rows
    that were left out because nothing can be learned from them.
    """

    items: list[Conversation]
    layout: str
    files: tuple[str, ...] = ()
    repeated: int = 0
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def sha256(self) -> str:
        """Hash over the ids: the identity of these conversations."""
        return hashlib.sha256("\n".join(item.id for item in self.items).encode()).hexdigest()

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> Conversations:
        """These conversations, in the order of `rows`."""
        return Conversations([self.items[row] for row in rows], self.layout, self.files)


def read_conversations(paths: Sequence[str | Path], *, progress: Progress = SILENT) -> Conversations:
    """Read the conversations of all `paths`, which must be of one layout. What cannot be used is left out and named.

    Raises DataError: a file is missing, damaged or of no known layout; layouts are mixed; more than 5 % of the rows
    hold something that no network can learn from (the first such row is explained, others are listed).
    """
    layouts: dict[str, str] = {}
    found: dict[str, Conversation] = {}
    unusable = UnusableRows()
    rows = 0
    for path in map(Path, paths):
        for place, row in json_rows(path, progress):
            rows += 1
            try:
                if isinstance(row, str):
                    raise DataError(row, hint="mend or remove this row")
                layout = _layout(row)
                conversation = Conversation(_READERS[layout](row))
                require_turns(conversation.messages, answered=True)
                layouts.setdefault(layout, place)
                found.setdefault(conversation.id, conversation)
            except DataError as error:
                unusable.add(place, error)
    where = ", ".join(map(str, paths))
    unusable.require_few(rows)
    if len(layouts) > 1:
        places = "; ".join(f"{layout} from {place}" for layout, place in layouts.items())
        raise DataError(
            f"the rows are of different layouts: {places}", where=where, hint="give one layout, or convert one of them"
        )
    if not found:
        raise DataError("there is no conversation here", where=where, hint=_KINDS_HINT)
    items = sorted(found.values(), key=lambda item: item.id)
    repeated, remarks = rows - len(unusable) - len(items), tuple(unusable.remarks("conversations"))
    return Conversations(items, next(iter(layouts)), tuple(map(str, paths)), repeated, remarks)


def messages_from(rows: Sequence[Mapping[str, Any] | Message]) -> tuple[Message, ...]:
    """Messages from OpenAI's layout. Raises DataError for what is none."""
    return tuple(row if isinstance(row, Message) else _message(row, "role", "content") for row in rows)


def require_turns(messages: Sequence[Message], *, answered: bool) -> None:
    """Raise DataError unless a system message, if any, comes first, and then user and assistant speak by turns.

    `answered`: at least one turn must be the assistant's; else the last turn must be the user's.
    """
    spoken = [message for message in messages if message.role != "system"]
    for number, message in enumerate(messages, start=1):
        if not message.content.strip():
            raise DataError(
                f"turn {number} ({message.role}) is empty",
                hint="remove the conversation, or say something in this turn",
            )
        if message.role == "system" and number > 1:
            raise DataError(
                f"turn {number} is a system message, which can only be the first",
                hint="move it, or make it a user turn",
            )
    for place, (message, expected) in enumerate(zip(spoken, _turns(), strict=False)):
        if message.role != expected:
            number = place + 1 + len(messages) - len(spoken)
            before = f"two {message.role} turns in a row" if place else f"the {message.role} speaks first"
            raise DataError(
                f"{before}: turn {number} should be the {expected}'s",
                hint="join turns of one speaker, or cut the conversation there",
            )
    if answered and not any(message.role == "assistant" for message in spoken):
        raise DataError("there is no assistant turn, so nothing to learn from", hint="remove this conversation")
    if not answered and (not spoken or spoken[-1].role != "user"):
        raise DataError("the last turn must be the user's, for an answer to follow", hint="end with a user turn")


def _turns() -> Iterator[Role]:
    while True:
        yield "user"
        yield "assistant"


# Layouts --------------------------------------------------------------------------------------------------------------


def _layout(row: Mapping[str, Any]) -> str:
    for layout, keys in _KEYS.items():
        if keys <= row.keys():
            return layout
    raise DataError(
        f"this layout is not known; its keys are {', '.join(map(repr, row)) or 'none'}",
        hint="give messages, conversations, instruction and output, or prompt and completion",
    )


def _openai(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return tuple(_message(turn, "role", "content") for turn in _turn_list(row["messages"], "messages"))


def _sharegpt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return tuple(_message(turn, "from", "value") for turn in _turn_list(row["conversations"], "conversations"))


def _alpaca(row: Mapping[str, Any]) -> tuple[Message, ...]:
    instruction, output = text_value(row["instruction"], "instruction"), text_value(row["output"], "output")
    given = row.get("input")
    asked = f"{instruction}\n\n{text_value(given, 'input')}" if given not in (None, "") else instruction
    return Message("user", asked), Message("assistant", output)


def _completion(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return (
        Message("user", text_value(row["prompt"], "prompt")),
        Message("assistant", text_value(row["completion"], "completion")),
    )


_KEYS: Mapping[str, frozenset[str]] = {
    "OpenAI messages": frozenset({"messages"}),
    "ShareGPT": frozenset({"conversations"}),
    "Alpaca": frozenset({"instruction", "output"}),
    "prompt/completion": frozenset({"prompt", "completion"}),
}
_READERS: Mapping[str, Callable[[Mapping[str, Any]], tuple[Message, ...]]] = {
    "OpenAI messages": _openai,
    "ShareGPT": _sharegpt,
    "Alpaca": _alpaca,
    "prompt/completion": _completion,
}


def _turn_list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"'{key}' is {_kind(value)}, not a list of turns", hint="give a list of objects")
    return value


def _message(turn: Any, role_key: str, content_key: str) -> Message:
    if not isinstance(turn, Mapping) or not {role_key, content_key} <= turn.keys():
        raise DataError(
            f"a turn is {_kind(turn)} without '{role_key}' and '{content_key}'",
            hint=f"write each turn as an object with '{role_key}' and '{content_key}'",
        )
    said = turn[role_key]
    role = _NAMES_OF_ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise DataError(f"the role {said!r} is not known", hint=_ROLES_HINT)
    if turn.get("tool_calls"):
        raise DataError("a turn calls tools, which is not supported", hint="remove conversations with tool calls")
    return Message(role, _content(turn[content_key], content_key))


def _content(value: Any, key: str) -> str:
    """A turn's text, also where OpenAI's interfaces write it as parts."""
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        kinds = {str(part.get("type")) for part in value}
        if kinds != {"text"}:
            raise DataError(
                f"a turn holds parts of type {', '.join(sorted(kinds - {'text'}))}",
                hint="only text can be learned from",
            )
        return "".join(text_value(part.get("text"), "text") for part in value)
    return text_value(value, key)


def text_value(value: Any, key: str) -> str:
    """The text under `key` of a row. DataError when it is none."""
    if not isinstance(value, str):
        raise DataError(f"'{key}' is {_kind(value)}, not a text", hint="write it as a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"'{key}' holds a lone surrogate, which is no valid text", hint="replace it, for instance by U+FFFD"
        ) from error
    return value


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")


# Reading --------------------------------------------------------------------------------------------------------------


def json_rows(path: Path, progress: Progress) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Where each row stands and what it is: an object, or a sentence on why it is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    ending = suffixes[-1] if suffixes else ""
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), hint="check the spelling")
    if ending != _JSON and ending not in _JSON_LINES:
        raise DataError("this is no file of conversations", where=str(path), hint=_KINDS_HINT)
    status = path.stat()
    file = SourceFile(path, path.name, "jsonl", compression, status.st_size, status.st_mtime_ns, status.st_ino)
    try:
        with progress.task(f"reading {path.name}", status.st_size, "B") as advance, open_plain(file, advance) as stream:
            reader = EncodedReader(stream)
            if reader.binary:
                raise DataError("this is a binary file, not JSON", where=str(path), hint=_KINDS_HINT)
            numbered = _array(path, reader) if ending == _JSON else parsed_json_lines(reader, 0)
            for number, row in numbered:
                yield f"{path.name}:row {number}", _told(row) if isinstance(row, Rejection) else row
    except READ_ERRORS as error:
        raise DataError(
            f"the file cannot be read to its end: {error or type(error).__name__}",
            where=str(path),
            hint="it may be damaged or cut off; make or download it anew",
        ) from error


def _array(path: Path, reader: EncodedReader) -> Iterator[tuple[int, dict[str, Any] | Rejection]]:
    """The objects of a JSON array."""
    parts = []
    while block := reader.read(_BLOCK):
        parts.append(block)
    try:
        value = json.loads(reader.to_utf8(b"".join(parts))[0])
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"this is not JSON: {error}", where=str(path), hint="is it JSON Lines? name it .jsonl"
        ) from error
    if not isinstance(value, list):
        raise DataError("this is not a JSON array", where=str(path), hint="give an array of conversations, or .jsonl")
    for number, row in enumerate(value, start=1):
        yield number, row if isinstance(row, dict) else Rejection(0, number, f"{_kind(row)} where a row should be")


def _told(rejection: Rejection) -> str:
    return f"{rejection.reason}{f' ({rejection.excerpt})' if rejection.excerpt else ''}"
