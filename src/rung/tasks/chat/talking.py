"""Talking with a model: messages in, an answer out, and never a silent loss of what was said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rung.data.chat_template import ChatTemplate, end_of_turn, require_special_tokens
from rung.data.conversations import Message, messages_from, require_turns
from rung.data.tokenizer import Tokenizer
from rung.errors import GenerationError
from rung.generation.engine import Engine, FinishReason, Piece
from rung.generation.options import SamplingOptions
from rung.generation.prefix_cache import PrefixCache

_LEAST_ROOM_SHARE = 4  # an answer is left at least this part of the context, or its `max_tokens` if that is less


@dataclass(frozen=True)
class ChatAnswer:
    """An answer. `dropped`: how many of the oldest messages were left out because the context is full.

    `prompt_tokens` are those the network read, `token_ids` those it wrote; finish_reason "length" means that the
    answer was ended by `max_tokens` or by the end of the context, not by the model.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    token_ids: list[int]
    dropped: int

    @property
    def message(self) -> Message:
        """The answer as the next message of the conversation."""
        return Message("assistant", self.text)


@dataclass(frozen=True)
class Prompt:
    """A conversation as the network will read it, and how many of its oldest messages do not fit."""

    token_ids: list[int]
    dropped: int


class Talker:
    """A language model with its chat template."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        """Raises TokenizerError when the template's special tokens are not in the tokenizer, or end no turn."""
        require_special_tokens(template, tokenizer)
        self.engine, self.tokenizer, self.template = engine, tokenizer, template
        self.end_of_turn = end_of_turn(template, tokenizer)

    @classmethod
    def of_folder(cls, engine: Engine, tokenizer: Tokenizer, folder: Path) -> Talker:
        """With the template of a model folder. TokenizerError when it has none."""
        return cls(engine, tokenizer, ChatTemplate.load(folder))

    @property
    def context_length(self) -> int:
        """Tokens that a conversation and its answer may have together."""
        return self.engine.context_length

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of a conversation, ready to be answered."""
        return len(self.template.render_prompt(messages, self.tokenizer)) if messages else 0

    def prompt(self, messages: Sequence[Message], max_tokens: int) -> Prompt:
        """The tokens of `messages`, without as many of the oldest turns as it takes to leave room for an answer.

        Whole turns go, a user's with the answer to it; the system message and the last turn stay. Raises DataError when
        the messages are none that can be answered, GenerationError when even the last turn does not fit.
        """
        require_turns(messages, answered=False)
        room = self.context_length - min(max_tokens, self.context_length // _LEAST_ROOM_SHARE)
        first = [message for message in messages[:1] if message.role == "system"]
        spoken = list(messages[len(first) :])
        for dropped in range(0, len(spoken), 2):
            token_ids = self.template.render_prompt([*first, *spoken[dropped:]], self.tokenizer)
            if len(token_ids) <= room:
                return Prompt(token_ids, dropped)
        raise GenerationError(
            f"the last message takes {len(token_ids):,} tokens with the system message; the context of "
            f"{self.context_length:,} has no room for them and an answer",
            hint="shorten the message, or the system message",
        )

    def stream(self, prompt: Prompt, options: SamplingOptions, prefixes: PrefixCache | None = None) -> Iterator[Piece]:
        """The answer, piece by piece; `prefixes` as in `Engine.stream`."""
        stops = (*options.stop_tokens, self.end_of_turn)
        return self.engine.stream(prompt.token_ids, replace(options, stop_tokens=stops), prefixes)

    def answer(self, messages: Sequence[Message], options: SamplingOptions) -> ChatAnswer:
        """The whole answer. Errors as in `prompt`."""
        prompt = self.prompt(messages, options.max_tokens)
        return finished(prompt, list(self.stream(prompt, options)))


def finished(prompt: Prompt, pieces: Sequence[Piece]) -> ChatAnswer:
    """What the pieces come to; an answer that was broken off counts as ended by length."""
    reason = pieces[-1].finish_reason if pieces else None
    return ChatAnswer(
        text="".join(piece.text for piece in pieces).strip(),
        finish_reason=reason or "length",
        prompt_tokens=len(prompt.token_ids),
        token_ids=[piece.token_id for piece in pieces],
        dropped=prompt.dropped,
    )


def chat(talker: Talker, messages: Sequence[Mapping[str, Any] | Message], **options: Any) -> ChatAnswer:
    """Answer `messages` (OpenAI's layout, or `Message`); `options` are those of `SamplingOptions`."""
    return talker.answer(messages_from(messages), SamplingOptions(**options))
