"""A conversation that goes on: its history, and what can be done with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rung.data.conversations import Message, messages_from, require_turns
from rung.errors import DataError, RunFolderError, UsageError
from rung.generation.engine import Piece
from rung.generation.options import SamplingOptions
from rung.generation.prefix_cache import PrefixCache
from rung.runfolder import write_text
from rung.tasks.chat.talking import ChatAnswer, Prompt, Talker, finished


@dataclass
class ChatSession:
    """Messages so far, and the model that answers. Each answer is drawn with a seed of its own.

    `prefixes` keeps what the network has read, so that a turn costs what is new in it; None: all is read in every turn.
    """

    talker: Talker
    options: SamplingOptions
    messages: list[Message] = field(default_factory=list)
    last: ChatAnswer | None = None
    answers: int = 0
    prefixes: PrefixCache | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.prefixes = self.talker.engine.prefix_cache()

    @property
    def system(self) -> str | None:
        """The system message."""
        return self.messages[0].content if self.messages and self.messages[0].role == "system" else None

    def set_system(self, text: str) -> None:
        """Say how the assistant shall be; an empty text takes the system message away. What was said stays."""
        kept = self.messages if self.system is None else self.messages[1:]
        self.messages = [Message("system", text), *kept] if text.strip() else list(kept)

    def ask(self, text: str) -> Asked:
        """Add a user turn, to be answered. Errors as in `Talker.prompt`; the turn is then not kept."""
        return self._asked([*self.messages, Message("user", text)])

    def regenerate(self) -> Asked:
        """Answer the last user turn anew. UsageError when nothing was asked yet."""
        if not self.messages or self.messages[-1].role != "assistant":
            raise UsageError("there is no answer to give anew", hint="say something first")
        return self._asked(self.messages[:-1])

    def reset(self) -> None:
        """Forget all that was said; the system message stays."""
        self.messages = self.messages[:1] if self.system is not None else []
        self.last = None
        self.prefixes = self.talker.engine.prefix_cache()

    @property
    def tokens(self) -> int:
        """Tokens of the whole conversation so far, as the network would read it."""
        return self.talker.count(self.messages)

    def save(self, path: Path) -> None:
        """Write the conversation as one line of JSON Lines: what `rung tune` learns from. Nothing is written over.

        UsageError when nothing was said or the file exists, RunFolderError when it cannot be written.
        """
        if all(message.role == "system" for message in self.messages):
            raise UsageError("nothing has been said yet", hint="save the conversation once there is an answer")
        if path.exists():
            raise UsageError("this file exists already", where=str(path), hint="give another name")
        line = json.dumps({"messages": [message.to_json() for message in self.messages]}, ensure_ascii=False)
        try:
            write_text(path, line + "\n")
        except OSError as error:
            raise RunFolderError(f"the file cannot be written ({error.strerror})", where=str(path)) from error

    def load(self, path: Path) -> None:
        """Go on with a conversation that `save` wrote. DataError when there is none; what was said then stays."""
        try:
            rows = list(json.loads(path.read_text(encoding="utf-8"))["messages"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            problem = f"this is no saved conversation ({type(error).__name__})"
            raise DataError(problem, where=str(path), hint="give a file that /save wrote") from error
        messages = list(messages_from(rows))
        if any(message.role != "system" for message in messages):
            require_turns(messages, answered=messages[-1].role == "assistant")
        self.messages, self.last = messages, None

    def _asked(self, messages: list[Message]) -> Asked:
        prompt = self.talker.prompt(messages, self.options.max_tokens)
        options = replace(self.options, seed=(self.options.seed + self.answers) % 2**64)
        self.answers += 1
        return Asked(self, messages, prompt, options)


@dataclass
class Asked:
    """A question on its way to an answer. `dropped`: messages that the network does not see any more."""

    session: ChatSession
    messages: list[Message]
    prompt: Prompt
    options: SamplingOptions
    pieces: list[Piece] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """How many of the oldest messages do not fit the context."""
        return self.prompt.dropped

    def stream(self) -> Iterator[str]:
        """The text of the answer as it is written."""
        for piece in self.session.talker.stream(self.prompt, self.options, self.session.prefixes):
            self.pieces.append(piece)
            if piece.text:
                yield piece.text

    def keep(self) -> ChatAnswer:
        """Add what was asked and answered, perhaps only in part, to the conversation. An empty answer adds nothing."""
        answer = finished(self.prompt, self.pieces)
        if answer.text:
            self.session.messages = [*self.messages, answer.message]
        self.session.last = answer
        return answer
