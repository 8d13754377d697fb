"""Conversations packed into rows: little padding, and no conversation sees another.

Rows are filled by best fit, longest first (Johnson 1974): each conversation goes into the fullest row that has room for
it. In a batch, `mask` numbers the conversations of a row; a decoder lets a token attend to its own conversation only
and begins positions anew in each, so a packed conversation has the logits that it has alone. Cutting long text into
rows without such a mask cost 0.03 to 0.15 of loss elsewhere (huggingface/trl#3910).

Which conversations share a row follows from their lengths alone, and the order of rows is a keyed permutation of
(seed, epoch): the whole state of the data is one integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rung.data.chat_template import ChatTemplate, RenderedTokens
from rung.data.conversations import Conversation
from rung.data.order import SampleOrder
from rung.data.pack import IGNORE_INDEX
from rung.data.tokenizer import Tokenizer
from rung.errors import DataError
from rung.progress import SILENT, Progress

if TYPE_CHECKING:
    from torch import Tensor

Ints = NDArray[np.int64]
Overlong = Literal["refuse", "drop", "cut"]
"""What to do with a conversation of more tokens than a row: stop, leave it out, or keep its beginning."""


@dataclass(frozen=True)
class TokenExamples:
    """Token sequences one after the other, and which tokens are learned.

    ids (tokens,) int32; learned (tokens,) bool; lengths (examples,) int64, each at least 2.
    """

    ids: NDArray[np.int32]
    learned: NDArray[np.bool_]
    lengths: Ints

    @classmethod
    def of(cls, rendered: Sequence[RenderedTokens]) -> TokenExamples:
        """Take what a chat template gave."""
        ids = [np.array(one.ids, dtype=np.int32) for one in rendered]
        learned = [np.array(one.assistant, dtype=bool) for one in rendered]
        return cls(
            np.concatenate([np.empty(0, np.int32), *ids]),
            np.concatenate([np.empty(0, bool), *learned]),
            np.array([len(one) for one in rendered], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Ints:
        """Where each example begins."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def num_targets(self) -> int:
        """Learned tokens; the first of an example is never predicted."""
        return int(self.learned.sum()) - int(self.learned[self.starts].sum())

    def example(self, number: int) -> RenderedTokens:
        """One example as lists."""
        place = slice(self.starts[number], self.starts[number] + self.lengths[number])
        return RenderedTokens(self.ids[place].tolist(), self.learned[place].tolist())


@dataclass(frozen=True)
class EncodedConversations:
    """Conversations as tokens: `kept[i]` is the number of the conversation that `examples` i is, `remarks` tell."""

    examples: TokenExamples
    kept: list[int]
    remarks: list[str]


def encode_conversations(
    conversations: Sequence[Conversation],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    context_length: int,
    base_length: int,
    overlong: Overlong = "refuse",
    progress: Progress = SILENT,
) -> EncodedConversations:
    """Render all conversations; those of more than `context_length` + 1 tokens are treated as `overlong` says.

    (The last token of an example is only ever predicted, so it needs no place in a row.) A conversation whose answers
    all lie beyond the cut is left out too. `base_length`: the longest context that the base reads. Raises DataError
    when a conversation is too long and that is not allowed, or when nothing to learn is left.
    """
    rendered, kept = [], []
    long = cut_off = unlearned = longest = 0
    with progress.task("rendering conversations", len(conversations), "conversations") as advance:
        for number, conversation in enumerate(conversations):
            tokens = template.render_tokens(conversation.messages, tokenizer)
            longest = max(longest, len(tokens) - 1)
            advance(1)
            if len(tokens) > context_length + 1:
                long += 1
                if overlong != "cut":
                    continue
                had_answer = any(tokens.assistant[1:])
                tokens = RenderedTokens(tokens.ids[: context_length + 1], tokens.assistant[: context_length + 1])
                if had_answer and not any(tokens.assistant[1:]):
                    cut_off += 1
                    continue
            if not any(tokens.assistant[1:]):
                unlearned += 1
                continue
            rendered.append(tokens)
            kept.append(number)
    if long and overlong == "refuse":
        raise DataError(
            f"{long:,} of {len(conversations):,} conversations have more tokens than a row's {context_length:,}; the "
            f"longest has {longest:,}",
            hint=f"{longer_context(context_length, base_length)}, or say what to do with them: "
            "--set data.overlong=drop or cut",
        )
    remarks = []
    if long:
        done = "left out" if overlong == "drop" else "cut to their beginning"
        remarks.append(f"{long:,} conversations of more than {context_length:,} tokens were {done}")
    if cut_off:
        remarks.append(f"{cut_off:,} conversations were left out: their answers lay beyond the cut")
    if unlearned:
        remarks.append(f"{unlearned:,} conversations were left out: the template marks no token of an answer in them")
    if not rendered and long:
        raise DataError(
            f"no token is left to learn: {remarks[0]}{', before any answer' if cut_off else ''}; the longest has "
            f"{longest:,}",
            hint=f"{longer_context(context_length, base_length)}, or shorter conversations",
        )
    if not rendered:
        raise DataError(
            "no token is left to learn: the template marks none in these conversations as the assistant's",
            where=template.where,
            hint="look at the template's {% generation %} marks, or give another: --set data.template=chatml",
        )
    return EncodedConversations(TokenExamples.of(rendered), kept, remarks)


def longer_context(context_length: int, base_length: int) -> str:
    """What to do where a context is too short: it can be made longer, up to what the base reads."""
    if context_length < base_length:
        return f"give a longer context (--set training.context_length=N, up to {base_length:,})"
    return f"give a base with a longer context, this one reads {base_length:,} tokens"


def best_fit(lengths: Ints, capacity: int) -> list[list[int]]:
    """Rows of item numbers: longest items first, each into the fullest row with room for it.

    Every length must be at most `capacity`. Items of one length keep their order; rows are in the order of their first.
    """
    if len(lengths) and int(lengths.max()) > capacity:
        raise ValueError(f"an item of {int(lengths.max())} does not fit into {capacity}")
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the room they have
    rooms = 0  # bit r: some row has room r
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms &= ~(1 << room)
        else:
            row, room = len(rows), capacity
            rows.append([])
        rows[row].append(item)
        with_room[room - length].append(row)
        rooms |= 1 << (room - length)
    return rows


class PackedRows:
    """Examples in rows of at most `context_length` places; batches are made of any rows.

    A batch holds, each (rows, time) int64 and as long as its longest row: `input_ids`; `labels`, the token that
    follows where it is learned and -100 elsewhere; `mask`, 0 for padding and k for the k-th example of its row.
    """

    def __init__(self, examples: TokenExamples, *, context_length: int, pad_token_id: int) -> None:
        self.examples, self.context_length, self._pad = examples, context_length, pad_token_id
        self.rows = best_fit(examples.lengths - 1, context_length)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def padding(self) -> float:
        """The share of places that hold no token, if every row were of full length."""
        return 1 - int((self.examples.lengths - 1).sum()) / (len(self.rows) * self.context_length)

    def collate(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The batch of these rows."""
        import torch

        used = [sum(int(self.examples.lengths[item]) - 1 for item in self.rows[row]) for row in rows]
        shape = (len(rows), max(used))
        ids = np.full(shape, self._pad, dtype=np.int64)
        labels = np.full(shape, IGNORE_INDEX, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for at, row in enumerate(rows):
            place = 0
            for number, item in enumerate(self.rows[row], start=1):
                start, length = int(self.examples.starts[item]), int(self.examples.lengths[item]) - 1
                whole, here = slice(start, start + length + 1), slice(place, place + length)
                tokens = self.examples.ids[whole]
                ids[at, here] = tokens[:-1]
                labels[at, here] = np.where(self.examples.learned[whole][1:], tokens[1:], IGNORE_INDEX)
                mask[at, here] = number
                place += length
        return {name: torch.from_numpy(one) for name, one in (("input_ids", ids), ("labels", labels), ("mask", mask))}


class TrainingRows:
    """Packed rows by sample number: every row once an epoch, in an order drawn by (seed, epoch)."""

    def __init__(self, rows: PackedRows, *, seed: int) -> None:
        self.rows = rows
        self._order = SampleOrder(len(rows), seed)

    def batch(self, sample_numbers: Ints) -> dict[str, Tensor]:
        """The rows of these samples; see `PackedRows`."""
        return self.rows.collate(self._order.locate(np.asarray(sample_numbers))[1].tolist())


class HeldOutRows:
    """Packed rows as they stand: sample number n is row n."""

    def __init__(self, rows: PackedRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, sample_numbers: Ints) -> dict[str, Tensor]:
        """These rows; see `PackedRows`."""
        return self.rows.collate(np.asarray(sample_numbers).tolist())
