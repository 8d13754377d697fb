"""What carrying on gained on the new text and lost on the old: bits per byte before and after, paired by document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rung.data.shards import TokenShards
from rung.errors import RunFolderError
from rung.evaluation.bits_per_byte import UNIT, bits_per_byte
from rung.evaluation.intervals import compare, interval
from rung.progress import Progress
from rung.records import ItemScores, Record
from rung.runfolder import write_json
from rung.tasks.continuing.drifting import DriftReport
from rung.tasks.text_preparation import PreparedText

_FOLDER = "before"
_FILE = "before.json"
_ALL_READ = {"value": None, "interval": None, "not_measured": "every held-out document was read in training"}


@dataclass(frozen=True)
class HeldOut:
    """Held-out documents of the new or of an old text; `read` are ids of documents that some training has read."""

    name: str
    shards: TokenShards
    read: frozenset[str]
    max_bytes: int

    def measure(self, net: Any, progress: Progress) -> tuple[Record, ItemScores]:
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
    """One measure of one text before and after; `change` is after - before, paired by document, with its interval."""

    name: str
    before: Record
    after: Record
    change: Record

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = {key: getattr(self, key).model_dump(mode="json") for key in ("before", "after", "change")}
        return {"name": self.name, **found}


@dataclass(frozen=True)
class Before:
    """What was measured before training began, kept in the run folder: the parent may be gone when it ends."""

    measured: dict[str, tuple[Record, ItemScores]]
    drift: DriftReport | None
    not_measured: dict[str, str]

    def save(self, run: Path) -> None:
        """Write it into `run`."""
        for name, (_, scores) in self.measured.items():
            scores.save(run / _FOLDER / f"{_slug(name)}.jsonl")
        write_json(
            run / _FOLDER / _FILE,
            {
                "measured": {name: record.model_dump(mode="json") for name, (record, _) in self.measured.items()},
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
                name: (Record(**record), ItemScores.load(run / _FOLDER / f"{_slug(name)}.jsonl"))
                for name, record in found["measured"].items()
            }
        except (OSError, ValueError, KeyError) as error:
            raise RunFolderError(
                f"what was measured before training cannot be read ({error})",
                where=str(run / _FOLDER),
                hint="carry on from the parent run anew",
            ) from error
        return cls(measured, found["drift"] and DriftReport.from_json(found["drift"]), found["not_measured"])

    def changes(self, after: dict[str, tuple[Record, ItemScores]]) -> tuple[Change, ...]:
        """Each measure with what it is now; not measured where the text is gone since."""
        return tuple(_change(name, found, after.get(name)) for name, found in self.measured.items())


_Measured = tuple[Record, ItemScores]


def _change(name: str, before: _Measured, after: _Measured | None) -> Change:
    called = f"change on {name}"
    if after is None or before[0].value is None or after[0].value is None:
        why = "the text is gone since the run began" if after is None else str(before[0].not_measured)
        missing = Record(name=called, value=None, unit=UNIT, n=0, not_measured=why)
        return Change(name, before[0], missing if after is None else after[0], missing)
    change = compare(after[1], before[1], name="bits_per_byte", unit=UNIT)
    return Change(
        name,
        before[0],
        after[0],
        change.model_copy(update={"name": called, "signature": "after - before, paired by document"}),
    )


def _slug(name: str) -> str:
    return name.replace(" ", "-")
