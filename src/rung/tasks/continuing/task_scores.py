"""Task scores before and after: labelled items put to the model with no example shown, as `rung prompt` does.

An item is asked in every template, and its score is the share of them after which its own label is the likeliest
(scoring `pmi`, see `rung.tasks.prompting.judging`). Nothing is trained or chosen on these items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rung.data.labelled import LabelledItems
from rung.data.labelled_reading import read_labelled
from rung.data.leaks import found_in_documents
from rung.errors import DataError, RunFolderError, UsageError
from rung.evaluation.intervals import interval
from rung.progress import Progress
from rung.records import ItemScores, Record
from rung.tasks.continuing.gains import Measured
from rung.tasks.prompting.judging import LocalJudge, Scoring
from rung.tasks.prompting.local_model import LocalModel
from rung.tasks.prompting.templates import CONTENT_FREE, TEMPLATES, Prompt

ASKING_SHARE = 0.03
"""Of the training time, for asking about all tables once: they are asked about before and after."""
FEWEST_ASKED = 50
"""Items of a table, however short the time: fewer say nothing."""
_SCORING: Scoring = "pmi"
_SEED = 0  # the same items whatever the run's seed, so that runs can be compared


@dataclass(frozen=True)
class TaskTable:
    """A labelled table and how it was read, to be read again. Stored as plain JSON; `name` is what the user wrote."""

    name: str
    path: str
    target: str
    text_columns: Sequence[str]
    sha256: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TaskTable:
        """Read the table's part of what `TaskItems.to_json` gave."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__})

    def read_again(self, progress: Progress) -> LabelledItems:
        """All items. Raises RunFolderError when the table is gone or not the same any more."""
        try:
            found = read_labelled(
                Path(self.path),
                target=self.target,
                text_columns=self.text_columns,
                test_is_given=True,
                progress=progress,
            )
        except DataError as error:
            raise RunFolderError(f"the table cannot be read any more: {error.problem}", where=self.path) from error
        if found.items.sha256 != self.sha256:
            raise RunFolderError("the table has changed since the run began", where=self.path)
        return found.items


def read_tables(
    paths: Sequence[str | Path], target: str | None, progress: Progress
) -> list[tuple[TaskTable, LabelledItems]]:
    """Read labelled tables; what had to be guessed is said.

    Raises UsageError for a table that is named twice or a target without a table, DataError for one without labels,
    with one class only, or that cannot be read.
    """
    names = [str(path) for path in paths]
    if target is not None and not names:
        raise UsageError("a column of labels means nothing without a table", where=f"target={target}")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(f"the table {twice[0]} is named twice", where="--eval", hint="name it once")
    tables = []
    for name in names:
        found = read_labelled(Path(name), target=target, test_is_given=True, progress=progress)
        for sentence in found.guessed:
            progress.say(f"{name}: {sentence}")
        path = str(Path(name).resolve())
        tables.append((TaskTable(name, path, found.target, found.text_columns, found.items.sha256), found.items))
    return tables


@dataclass(frozen=True)
class TaskItems:
    """The items of a table that are asked about, of `offered`.

    `too_long` were drawn but do not fit the context; `read` stand in the old or the new text, so that a right answer
    might be remembered.
    """

    table: TaskTable
    items: LabelledItems
    offered: int
    too_long: int
    read: int

    @property
    def majority(self) -> float:
        """What always saying the most frequent label scores."""
        return float(np.bincount(self.items.labels).max() / len(self.items))

    def line(self) -> str:
        """What is asked, for people."""
        left_out = [f"{self.too_long:,} more do not fit the context with their prompt"] if self.too_long else []
        left_out += [f"{self.read:,} stand in the text and are not asked about"] if self.read else []
        told = f" ({', '.join(left_out)})" if left_out else ""
        return f"task score on {self.table.name}: {len(self.items):,} of {self.offered:,} items{told}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the run's header and `--json`."""
        counts = {"asked": len(self.items), "offered": self.offered, "too_long": self.too_long, "read": self.read}
        return {**vars(self.table), "text_columns": list(self.table.text_columns), **counts, "majority": self.majority}


def unread(
    tables: Sequence[tuple[TaskTable, LabelledItems]], documents: Iterable[str]
) -> list[tuple[TaskTable, LabelledItems, int]]:
    """The tables without the items that stand in `documents`, and how many those are (`found_in_documents`).

    Raises DataError when nothing is left of one.
    """
    found = iter(found_in_documents([text for _, items in tables for text in items.texts], documents))
    left = []
    for table, items in tables:
        read = np.array(list(islice(found, len(items))), bool)
        if read.all():
            raise DataError(
                "every item of this table stands in the text, so its answers might be remembered",
                where=table.name,
                hint="give items that no network has read, or leave --eval out",
            )
        left.append((table, items.take(np.flatnonzero(~read)), int(read.sum())))
    return left


def draw_items(table: TaskTable, items: LabelledItems, read: int, model: LocalModel, *, tokens: float) -> TaskItems:
    """Draw items until asking about them takes `tokens`, at least `FEWEST_ASKED`; those that do not fit are left out.

    `read`: how many of the table were left out before. Raises DataError when none fits the model's context with its
    prompt.
    """
    prompts = _prompts(items)
    labels = model.label_tokens(prompts[0])
    longest, forked = max(map(len, labels)), sum(len(label) - 1 for label in labels)

    def lengths(text: str) -> list[int]:
        return [len(model.prompt_tokens(prompt, text)) + longest for prompt in prompts]

    chosen: list[int] = []
    spent = too_long = 0
    if max(lengths(CONTENT_FREE)) <= model.context_length:
        for index in np.random.default_rng(_SEED).permutation(len(items)).tolist():
            if spent >= tokens and len(chosen) >= FEWEST_ASKED:
                break
            found = lengths(items.texts[index])
            if max(found) > model.context_length:
                too_long += 1
                continue
            chosen.append(index)
            spent += sum(found) + len(prompts) * forked
    if not chosen:
        raise DataError(
            f"no item fits the context of {model.context_length:,} tokens together with its prompt "
            f"({len(items.label_names):,} labels)",
            where=table.name,
            hint="give a table of shorter texts or fewer labels, or leave --eval out",
        )
    return TaskItems(table, items.take(np.sort(chosen)), read + len(items), too_long, read)


def score_items(model: LocalModel, items: LabelledItems, progress: Progress) -> Measured:
    """Accuracy of `model` on `items`, no example shown: the mean over items and templates, and each item's share."""
    judge, found = LocalJudge(model), np.zeros(len(items))
    with progress.task("asking about labelled items", len(TEMPLATES) * len(items), "questions") as advance:
        for prompt in _prompts(items):
            judged = judge.judge(prompt, items.texts)
            found += (judged.probabilities[_SCORING].argmax(axis=1) == items.labels) & ~judged.failed
            advance(len(items))
    scores = ItemScores(items.ids, found / len(TEMPLATES), np.ones(len(items)))
    record = Record(
        name="accuracy",
        value=scores.mean,
        unit="share",
        n=len(items),
        interval=interval(scores),
        signature=f"0 examples,scoring:{_SCORING},mean over {len(TEMPLATES)} templates,float32",
        data_sha256=items.sha256,
    )
    return record, scores


def score_again(table: TaskTable, model: LocalModel, before: ItemScores, progress: Progress) -> Measured:
    """`score_items` on the items of `before`. RunFolderError when the table is gone or not the same any more."""
    items, wanted = table.read_again(progress), set(before.ids)
    return score_items(model, items.take(np.flatnonzero([item in wanted for item in items.ids])), progress)


def _prompts(items: LabelledItems) -> list[Prompt]:
    return [Prompt(template, items.label_names) for template in TEMPLATES]
