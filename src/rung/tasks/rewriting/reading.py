"""From files of pairs to a task of the comparison: read, split, write the parts down, gather what the report tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.data.pairs import Pairs
from rung.progress import SILENT, Progress
from rung.runfolder import write_text
from rung.tasks.rewriting.preparation import read_split
from rung.tasks.rewriting.recipe import RewritingRecipe
from rung.tasks.rewriting.task import METRICS, RewritingTask
from rung.tasks.task import Part

Paths = Sequence[Path | str]


def read_task(
    files: Paths,
    *,
    folder: Path,
    source: str | None = None,
    target: str | None = None,
    valid: Paths = (),
    test: Paths = (),
    seed: int = 0,
    threads: int = 1,
    metric: str = METRICS[0],
    progress: Progress = SILENT,
) -> RewritingTask:
    """Read pairs and write their parts into `folder`: every network and seed is trained on the same files.

    Raises DataError for pairs that cannot be used; see `rung.data.pairs`.
    """
    recipe = RewritingRecipe().with_overrides(
        {
            "pairs.files": [str(path) for path in files],
            "pairs.source": source,
            "pairs.target": target,
            "pairs.valid": [str(path) for path in valid],
            "pairs.test": [str(path) for path in test],
            "seed": seed,
        }
    )
    split = read_split(recipe.pairs, seed=seed, progress=progress)
    parts: dict[Part, Pairs] = {"train": split.train, "valid": split.valid, "test": split.test}
    written: dict[Part, Path] = {part: folder / f"{part}.jsonl" for part in parts}
    names = (split.train.source_name, split.train.target_name)  # so that a kept rung reads such files later
    folder.mkdir(parents=True, exist_ok=True)
    for part, pairs in parts.items():
        rows = zip(pairs.sources, pairs.targets, strict=True)
        lines = (json.dumps({names[0]: one, names[1]: other}, ensure_ascii=False) for one, other in rows)
        write_text(written[part], "".join(f"{line}\n" for line in lines))
    task = RewritingTask(parts, written, {}, threads, metric)
    facts: dict[str, Any] = {
        "files": [str(path) for path in files],
        "sha256": task.sha256,
        "target": split.train.target_name,
        "text_columns": [split.train.source_name],
        "guessed": [],
        "rows": sum(len(pairs) for pairs in parts.values()),
        "rejected": {},
        "classes": [],
        "split": {
            "method": "given" if valid and test else "by source",
            "sha256": task.sha256,
            **{part: len(pairs) for part, pairs in parts.items()},
            "leaked": 0,
        },
        "profile": list(split.remarks),
        "gates": [],
    }
    return RewritingTask(parts, written, facts, threads, metric)
