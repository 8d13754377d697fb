"""Conversations to learn from, to validate and to test on, with nothing alike in two parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rung.data.conversations import Conversation, Conversations
from rung.data.label_split import make_split
from rung.data.labelled import LabelledItems
from rung.data.leaks import without_items
from rung.errors import DataError

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class ConversationSplit:
    """The three parts, and sentences about what was left out."""

    train: Conversations
    valid: Conversations
    test: Conversations
    remarks: list[str]

    def __getitem__(self, part: str) -> Conversations:
        parts: dict[str, Conversations] = {"train": self.train, "valid": self.valid, "test": self.test}
        return parts[part]


def split_conversations(
    conversations: Conversations,
    *,
    valid: Conversations | None = None,
    test: Conversations | None = None,
    seed: int,
    valid_share: float = 0.05,
    test_share: float = 0.1,
) -> ConversationSplit:
    """Cut off what `valid` and `test` do not bring, by keyed hashes over clusters of conversations with like prompts.

    Prompts that are equal or nearly so (`rung.data.similar_items`) are never in two parts. What gives away a prompt of
    a given file is left out of the parts that are cut off, and of given validation what is in given test; both are
    counted. A given test file loses only what nothing can be measured on.
    Raises DataError when too few are left for a part.
    """
    items = LabelledItems(
        [item.id for item in conversations.items],
        [asked(item) for item in conversations.items],
        np.zeros(len(conversations), np.int64),
        ("conversation",),
    )
    remarks = [remark for part in (conversations, valid, test) if part is not None for remark in part.remarks]
    if conversations.repeated:
        remarks.append(f"{conversations.repeated:,} repeated conversations left out")
    shares = 0.0 if valid is not None else valid_share, 0.0 if test is not None else test_share
    cut = make_split(items, seed=seed, valid_share=shares[0], test_share=shares[1])
    remarks += cut.notes
    if valid is not None and test is not None:
        valid = _without(valid, [test], "validation", remarks)
    given = [part for part in (valid, test) if part is not None]
    train = _without(conversations.take(cut.train), given, "training", remarks)
    if valid is None:
        valid = _without(conversations.take(cut.valid), given, "validation", remarks)
    if test is None:
        test = _without(conversations.take(cut.test), given, "test", remarks)
    for name, part in zip(PARTS, (train, valid, test), strict=True):
        if not len(part):
            raise DataError(
                f"no conversation is left for the {name} part of {len(conversations):,}",
                hint="give more conversations, or others to hold out: --valid FILE --test FILE",
            )
    return ConversationSplit(train, valid, test, remarks)


def asked(conversation: Conversation) -> str:
    """What the user says: what is compared."""
    return "\n".join(message.content for message in conversation.messages if message.role == "user")


def _without(part: Conversations, held_out: list[Conversations], name: str, remarks: list[str]) -> Conversations:
    """`part` without what gives away a prompt of `held_out`."""
    others = [asked(item) for other in held_out for item in other.items]
    if not others:
        return part
    texts = [asked(item) for item in part.items]
    kept = set(without_items(texts, others)[0])
    rows = [row for row, text in enumerate(texts) if text in kept]
    if len(rows) < len(texts):
        remarks.append(f"{len(texts) - len(rows):,} {name} conversations left out: their prompts are held out")
    return part.take(rows)
