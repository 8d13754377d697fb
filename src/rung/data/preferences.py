"""Preferences: two answers to one prompt, of which one is better. JSON Lines in the layouts that such data come in.

    prompt, chosen, rejected              texts; or `prompt` as a list of OpenAI messages
    instruction, input, chosen, rejected  Alpaca's layout with a second answer
    chosen, rejected                      whole conversations that differ in the last answer: lists of OpenAI messages,
                                          or Anthropic's text with "\n\nHuman:" and "\n\nAssistant:" before each turn

Nothing is repaired by guessing. Large sets of preferences hold some rows that say nothing (equal answers, an empty
one): these are left out and named, and many of them are an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rung.data.conversation_split import split_conversations
from rung.data.conversations import (
    Conversation,
    Conversations,
    Message,
    json_rows,
    messages_from,
    require_turns,
    text_value,
)
from rung.data.unusable import UnusableRows
from rung.errors import DataError
from rung.progress import SILENT, Progress

_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_LAYOUTS = (
    "prompt, chosen and rejected; instruction, chosen and rejected; or chosen and rejected as whole conversations"
)


@dataclass(frozen=True)
class Preference:
    """A prompt, which ends with a user turn, and two answers to it."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    @cached_property
    def id(self) -> str:
        """A name that comes from the content: 20 hexadecimal digits."""
        return hashlib.sha256("\x00".join((self.preferred.id, self.rejected)).encode()).hexdigest()[:20]

    @cached_property
    def preferred(self) -> Conversation:
        """The prompt with the better answer."""
        return Conversation((*self.prompt, Message("assistant", self.chosen)))


@dataclass(frozen=True)
class Preferences:
    """Preferences in the order of their ids, each once. `remarks`: sentences about what was left out."""

    items: list[Preference]
    remarks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def sha256(self) -> str:
        """Hash over the ids: the identity of these preferences."""
        return hashlib.sha256("\n".join(item.id for item in self.items).encode()).hexdigest()


@dataclass(frozen=True)
class PreferenceSplit:
    """The three parts, nothing alike in two of them, and sentences about what was left out."""

    train: Preferences
    valid: Preferences
    test: Preferences
    remarks: list[str]


def read_preferences(paths: Sequence[str | Path], *, progress: Progress = SILENT) -> Preferences:
    """Read the preferences of all `paths`. What cannot be used is left out and named.

    Raises DataError: a file is missing or damaged, more than 5 % of the rows cannot be used (the first is explained),
    nothing is left.
    """
    found: dict[str, Preference] = {}
    unusable = UnusableRows()
    rows = 0
    for path in map(Path, paths):
        for place, row in json_rows(path, progress):
            rows += 1
            try:
                if isinstance(row, str):
                    raise DataError(row, hint="mend or remove this row")
                one = _preference(row)
                found[one.id] = one
            except DataError as error:
                unusable.add(place, error)
    unusable.require_few(rows)
    if not found:
        raise DataError("there is no pair here", where=", ".join(map(str, paths)), hint=f"give {_LAYOUTS}")
    remarks = unusable.remarks("pairs")
    if repeated := rows - len(unusable) - len(found):
        remarks.append(f"{repeated:,} repeated pairs left out")
    items = sorted(found.values(), key=lambda item: item.id)
    return Preferences(items, tuple(remarks), tuple(map(str, paths)))


def split_preferences(
    preferences: Preferences,
    *,
    valid: Preferences | None = None,
    test: Preferences | None = None,
    seed: int,
    valid_share: float,
    test_share: float,
) -> PreferenceSplit:
    """Cut off what `valid` and `test` do not bring, as `rung.data.conversation_split` does: like prompts stay together.

    Raises DataError when too few are left for a part.
    """

    def conversations(part: Preferences | None) -> Conversations | None:
        return None if part is None else Conversations([one.preferred for one in part.items], "pairs", part.files)

    all_pairs = conversations(preferences)
    assert all_pairs is not None  # noqa: S101 - for the type checker
    cut = split_conversations(
        all_pairs,
        valid=conversations(valid),
        test=conversations(test),
        seed=seed,
        valid_share=valid_share,
        test_share=test_share,
    )

    def of(part: Conversations, given: Preferences | None) -> Preferences:
        chosen = {item.id for item in part.items}
        source = preferences if given is None else given
        return Preferences([one for one in source.items if one.preferred.id in chosen], (), source.files)

    parts = of(cut.train, None), of(cut.valid, valid), of(cut.test, test)
    told = [remark for given in (preferences, valid, test) if given is not None for remark in given.remarks]
    return PreferenceSplit(*parts, [*told, *cut.remarks])


def _preference(row: Mapping[str, Any]) -> Preference:
    if not {"chosen", "rejected"} <= row.keys():
        raise DataError(
            f"a pair needs 'chosen' and 'rejected'; this row has {', '.join(map(repr, row)) or 'nothing'}",
            hint=f"give {_LAYOUTS}",
        )
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" in row or "instruction" in row:
        prompt = _prompt(row)
        one = Preference(prompt, _answer(chosen, "chosen"), _answer(rejected, "rejected"))
    else:
        one = _of_conversations(*(_conversation(row[key], key) for key in ("chosen", "rejected")))
    require_turns(one.prompt, answered=False)
    for key, answer in (("chosen", one.chosen), ("rejected", one.rejected)):
        if not answer.strip():
            raise DataError(f"the {key} answer is empty", hint="remove the pair")
    if one.chosen.strip() == one.rejected.strip():
        raise DataError("both answers are the same", hint="remove the pair")
    return one


def _prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    if "prompt" in row:
        value = row["prompt"]
        return messages_from(value) if isinstance(value, list) else (Message("user", text_value(value, "prompt")),)
    asked, given = text_value(row["instruction"], "instruction"), row.get("input")
    return (Message("user", f"{asked}\n\n{text_value(given, 'input')}" if given not in (None, "") else asked),)


def _answer(value: Any, key: str) -> str:
    """An answer as text, or as a list of one assistant message."""
    if isinstance(value, list):
        messages = messages_from(value)
        if len(messages) != 1 or messages[0].role != "assistant":
            raise DataError(f"'{key}' is not one assistant message", hint="give the answer alone beside a prompt")
        return messages[0].content
    return text_value(value, key)


def _conversation(value: Any, key: str) -> tuple[Message, ...]:
    if isinstance(value, list):
        return messages_from(value)
    pieces = _TURN.split(text_value(value, key))
    if len(pieces) < 3 or pieces[0].strip():
        raise DataError(
            f"'{key}' is a text without a prompt",
            hint='give "prompt" too, or begin each turn with Human: or Assistant:',
        )
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return messages_from([{"role": roles[role], "content": said.strip()} for role, said in turns])


def _of_conversations(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> Preference:
    if chosen[:-1] != rejected[:-1] or not chosen[:-1]:
        raise DataError(
            "the two conversations differ before the last turn", hint="let them differ in the last answer alone"
        )
    for key, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns[-1].role != "assistant":
            raise DataError(f"the {key} conversation does not end with an answer", hint="end with an assistant turn")
    return Preference(chosen[:-1], chosen[-1].content, rejected[-1].content)
