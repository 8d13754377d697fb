"""How well a text-to-text network writes for pairs that it has not seen: `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rung.data.pairs import read_pairs
from rung.errors import UsageError
from rung.progress import SILENT, Progress
from rung.records import Record
from rung.tasks.rewriting.measuring import measure
from rung.tasks.rewriting.rewriter import Rewriter, load_rewriter


@dataclass(frozen=True)
class RewritingEvaluation:
    """Records of the metrics, and remarks about pairs that were left out."""

    run: Path
    records: list[Record]
    remarks: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.run),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "remarks": self.remarks,
        }


def evaluate(
    run: str | Path,
    files: Sequence[Path | str],
    *,
    source: str | None = None,
    target: str | None = None,
    threads: int | None = None,
    rewriter: Rewriter | None = None,
    progress: Progress = SILENT,
) -> RewritingEvaluation:
    """Measure a run on pairs: a table with the columns it was trained on (or `source`, `target`), or two aligned files.

    Raises UsageError without files, DataError for pairs that cannot be used, RunFolderError.
    """
    if not files:
        raise UsageError("there are no pairs to measure on", hint=f"rung eval {run} pairs.csv, or two aligned files")
    if threads is not None:
        torch.set_num_threads(threads)
    rewriter = rewriter or load_rewriter(run)
    named = rewriter.header.get("recipe", {}).get("pairs", {})
    pairs = read_pairs(
        files, source=source or named.get("source"), target=target or named.get("target"), progress=progress
    )
    remarks = [f"{count:,} pairs left out: {reason}" for reason, count in pairs.rejected.items()]
    measured = measure(rewriter, pairs, progress)
    if left_out := len(pairs) - len(measured.pairs):
        remarks.append(f"{left_out:,} pairs left out: the source is longer than {rewriter.context_length:,} tokens")
    return RewritingEvaluation(Path(run), measured.records, remarks)
