"""What carrying on gained on the new text and lost on the old: before and after, paired by document or by item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rung.data.shards import TokenShards
from rung.errors import RunFolderError
from rung.evaluation.bits_per_byte import bits_per_byte
from rung.evaluation.intervals import compare, interval
from rung.progress import Progress
from rung.records import ItemScores, Record
from rung.runfolder import write_json
from rung.tasks.continuing.drifting import DriftReport
from rung.tasks.text_preparation import PreparedText

_FOLDER = "before"
_FILE = "before.json"
Measured = tuple[Record, ItemScores]
_ALL_READ = {"value": None, "interval": None, "not_measured": "every held-out document was read in training"}


@dataclass(frozen=True)
class HeldOut:
    """Held-out documents of the new or of an old text; `read` are ids of documents that some training has read."""

    name: str
    shards: TokenShards
    read: frozenset[str]
    max_bytes: int

    def measure(self, net: Any, progress: Progress) -> Measured:
        """Bits per byte of `net`, without the documents that were read."""
        record, scores = bits_per_byte(net, self.shards, max_bytes=self.max_bytes, progress=progress)
        kept = np.array([item.partition("-")[0] not in self.read for item in scores.ids])
        if not kept.all():
            ids = [item for item, keep in zip(scores.ids, kept, strict=True) if keep]
            scores = ItemScores(ids, scores.values[kept], scores.weights[kept])
            changed: dict[str, Any] = {"n": len(ids), "signature": f"{record.signature},without-documents-read"}
            changed |= {"value": scores.mean, "interval": interval(scores)} if ids else _ALL_READ
            record = record.model_copy(update={"data_sha256": None} | changed)
        return record, scores


def held_out(new: PreparedText, old: Sequence[PreparedText], max_bytes: int) -> tuple[HeldOut, ...]:
    """The held-out parts of the new text and of each old one, less what the training parts of the others hold.

    A text decides by each document's own content what is held out, but two runs may have been given other seeds,
    shares or validation files; then a document can stand on both sides.
    """
    read_new = frozenset(new.train.document_ids)
    read_old = frozenset(item for text in old for item in text.train.document_ids)
    names = ["old text"] if len(old) == 1 else [f"old text {number}" for number in range(1, len(old) + 1)]
    olds = [HeldOut(name, text.valid, read_new | read_old, max_bytes) for name, text in zip(names, old, strict=True)]
    return (HeldOut("new text", new.valid, read_old | read_new, max_bytes), *olds)


@dataclass(frozen=True)
class Change:
    """One measure of one text or table before and after; `change` is after - before, paired by item, with its interval.

    `majority`: what always saying a table's most frequent label scores.
    """

    name: str
    before: Record
    after: Record
    change: Record
    majority: float | None = None

    @property
    def short_name(self) -> str:
        """`name`, of a longer path only the last folder and the file: for people, and for a card that is handed on."""
        return "/".join(Path(self.name).parts[-2:])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = {key: getattr(self, key).model_dump(mode="json") for key in ("before", "after", "change")}
        return {"name": self.name, **found, **({} if self.majority is None else {"majority": self.majority})}


@dataclass(frozen=True)
class Before:
    """What was measured before training began, kept in the run folder: the parent may be gone when it ends.

    `measured` holds bits per byte by the name of the text, `tasks` accuracies by the name of the table.
    """

    measured: dict[str, Measured]
    tasks: dict[str, Measured]
    drift: DriftReport | None
    not_measured: dict[str, str]

    def save(self, run: Path) -> None:
        """Write it into `run`."""
        for name, (_, scores) in self.measured.items():
            scores.save(run / _FOLDER / _text_file(name))
        for number, (_, scores) in enumerate(self.tasks.values()):
            scores.save(run / _FOLDER / _task_file(number))
        write_json(
            run / _FOLDER / _FILE,
            {
                "measured": {name: record.model_dump(mode="json") for name, (record, _) in self.measured.items()},
                "tasks": {name: record.model_dump(mode="json") for name, (record, _) in self.tasks.items()},
                "drift": self.drift and self.drift.to_json(),
                "not_measured": self.not_measured,
            },
        )

    @classmethod
    def load(cls, run: Path) -> Before:
        """Read what `save` wrote. RunFolderError where it is not there."""
        try:
            found = json.loads((run / _FOLDER / _FILE).read_text(encoding="utf-8"))
            measured = {
                name: (Record(**record), ItemScores.load(run / _FOLDER / _text_file(name)))
                for name, record in found["measured"].items()
            }
            tasks = {
                name: (Record(**record), ItemScores.load(run / _FOLDER / _task_file(number)))
                for number, (name, record) in enumerate(found.get("tasks", {}).items())
            }
        except (OSError, ValueError, KeyError) as error:
            raise RunFolderError(
                f"what was measured before training cannot be read ({error})",
                where=str(run / _FOLDER),
                hint="carry on from the parent run anew",
            ) from error
        drift = found["drift"] and DriftReport.from_json(found["drift"])
        return cls(measured, tasks, drift, found["not_measured"])

    def changes(self, after: Mapping[str, Measured]) -> tuple[Change, ...]:
        """Bits per byte of each text with what they are now; not measured where the text is gone since."""
        gone = "the text is gone since the run began"
        return tuple(_change(name, found, after.get(name, gone), "document") for name, found in self.measured.items())

    def task_changes(self, after: Mapping[str, Measured | str], majority: Mapping[str, float]) -> tuple[Change, ...]:
        """The score on each table with what it is now, or why that is not known."""
        return tuple(
            replace(_change(name, found, after[name], "item"), majority=majority[name])
            for name, found in self.tasks.items()
        )


def _change(name: str, before: Measured, after: Measured | str, item: str) -> Change:
    first, scores = before
    called = f"change on {name}"
    if isinstance(after, str) or first.value is None or after[0].value is None:
        why = after if isinstance(after, str) else str(first.not_measured)
        missing = Record(name=called, value=None, unit=first.unit, n=0, not_measured=why)
        return Change(name, first, missing if isinstance(after, str) else after[0], missing)
    change = compare(after[1], scores, name=first.name, unit=first.unit)
    changed = {"name": called, "signature": f"after - before, paired by {item}"}
    return Change(name, first, after[0], change.model_copy(update=changed))


def _text_file(name: str) -> str:
    return f"{name.replace(' ', '-')}.jsonl"


def _task_file(number: int) -> str:
    return f"task-{number + 1}.jsonl"
