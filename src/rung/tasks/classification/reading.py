"""From files to a classification task: read, split, look for leaks, and gather what the report tells of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rung.data.cache import cache_folder
from rung.data.corpus import prepare_corpus
from rung.data.label_split import Method, Split, given_split, make_split, one_of_each
from rung.data.labelled import LabelledItems
from rung.data.labelled_reading import LabelledTable, read_labelled
from rung.data.leaks import Leaks, find_leaks, require_no_leaks, without_items
from rung.data.profile import all_findings, profile
from rung.errors import DataError, UsageError
from rung.progress import SILENT, Progress
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.task import Part, Rung

Paths = Sequence[Path | str]
_TEST_SHARE, _VALID_SHARE = 0.2, 0.1
_FEWEST_GROUPS = 10
_PARTS: tuple[Part, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class DataSources:
    """Which files and columns. Without `test` (or `valid`) files those parts are split off; see `make_split`."""

    files: Paths
    target: str | None = None
    text_columns: Sequence[str] | None = None
    group: str | None = None
    time: str | None = None
    test: Paths = ()
    valid: Paths = ()
    unlabelled: Paths = ()
    split: Method | None = None
    allow_leaks: bool = False


def read_task(
    sources: DataSources,
    *,
    seed: int,
    threads: int,
    metric: str = "accuracy",
    more_rungs: tuple[Rung, ...] = (),
    progress: Progress = SILENT,
) -> ClassificationTask:
    """Read labelled data, cut it in three parts and look for what would spoil a comparison.

    Without `split` the cut is by time if a time column is named, else by group if one with at least 10 groups is, else
    stratified: a few groups (two sexes, five regions) are there to be compared, not to be kept apart. Rows without a
    label and the texts of `unlabelled` files serve pretraining, without any that give away a validation or test item.
    Of near-copies among validation or test items that are cut off here, one is kept.

    Raises DataError for data that cannot be used, or when more than 5 % of the test items leaked and that was not
    allowed; UsageError for contradictory sources.
    """
    if sources.valid and not sources.test:
        raise UsageError("validation files need test files beside them", hint="name test files with --test")
    table = read_labelled(
        [Path(path) for path in sources.files],
        target=sources.target,
        text_columns=sources.text_columns,
        group=sources.group,
        time=sources.time,
        keep_unlabelled=True,
        test_is_given=bool(sources.test),
        progress=progress,
    )
    items, split = _parts(table, sources, seed, progress)
    with progress.task("looking for leaks and duplicates", None, "") as advance:
        leaks = find_leaks(_seen(items), items["test"])
        require_no_leaks(leaks, allow=sources.allow_leaks)
        if leaks.leaked.all():
            raise DataError(
                "every test item is in training too, so nothing is left to judge by",
                where=", ".join(map(str, sources.test or sources.files)),
                hint="test on other rows, or leave out --test to have some split off",
            )
        unlabelled = [*table.unlabelled, *_raw_texts(sources.unlabelled, progress)]
        kept, dropped = without_items(unlabelled, [*items["valid"].texts, *items["test"].texts])
        gates = _gates(table, leaks, len(unlabelled), len(dropped))
        advance(1)
    for sentence in _worth_saying(table, gates):
        progress.say(sentence)
    return ClassificationTask(
        items,
        unlabelled=kept,
        threads=threads,
        primary_metric=metric,
        more_rungs=more_rungs,
        leaked=leaks.leaked,
        facts=_facts(table, items, split, gates, leaked=int(leaks.leaked.sum())),
    )


def _parts(
    table: LabelledTable, sources: DataSources, seed: int, progress: Progress
) -> tuple[dict[Part, LabelledItems], Split]:
    everything = table.items
    if not sources.test:
        method = sources.split or _usual_method(everything)
        if everything.groups is not None and method == "stratified":
            said = f"The groups of '{sources.group}' are compared; items of one group may be in several parts."
            table.guessed.append(said)
        split = make_split(everything, seed=seed, method=method, test_share=_TEST_SHARE, valid_share=_VALID_SHARE)
        held_out = {"valid": everything.take(split.valid), "test": everything.take(split.test)}
        once = {part: items.take(one_of_each(items)) for part, items in held_out.items()}
        copies = sum(len(held_out[part]) - len(once[part]) for part in held_out)
        if copies:
            table.guessed.append(f"{copies:,} validation and test items are near-copies of others there and left out.")
        return {"train": everything.take(split.train), "valid": once["valid"], "test": once["test"]}, split
    test = _like(table, sources.test, sources, progress)
    if sources.valid:
        train, valid = everything, _like(table, sources.valid, sources, progress)
    else:
        cut = make_split(everything, seed=seed, test_share=0.0, valid_share=_VALID_SHARE)
        train, valid = everything.take(cut.train), everything.take(cut.valid)
    items: dict[Part, LabelledItems] = {"train": train, "valid": valid, "test": test}
    return items, given_split(*(items[part].ids for part in _PARTS))


def _usual_method(items: LabelledItems) -> Method:
    if items.times is not None:
        return "time"
    return "grouped" if items.groups is not None and len(set(items.groups)) >= _FEWEST_GROUPS else "stratified"


def _like(table: LabelledTable, paths: Paths, sources: DataSources, progress: Progress) -> LabelledItems:
    """More items with the columns and labels of `table`; those with a label unseen in training are left out."""
    names = table.items.label_names
    found = read_labelled(
        [Path(path) for path in paths],
        target=table.target,
        text_columns=table.text_columns,
        group=sources.group,
        time=sources.time,
        label_names=names,
        progress=progress,
    )
    known = found.items.labels < len(names)
    if not known.any():
        raise DataError(
            f"no row has a label that is in training too ({', '.join(names[:5])})",
            where=", ".join(found.files),
            hint="check the labels: they have to be spelled alike",
        )
    if not known.all():
        unseen = ", ".join(f"'{name}' ({count:,})" for name, count in found.unseen_labels.items())
        table.warnings.append(f"rows with labels that are not in training are left out: {unseen}")
    return replace(found.items.take(np.flatnonzero(known)), label_names=names)


def _seen(items: Mapping[Part, LabelledItems]) -> LabelledItems:
    """Training and validation items together: a fit has looked at both."""
    train, valid = items["train"], items["valid"]
    labels = np.concatenate([train.labels, valid.labels])
    return LabelledItems([*train.ids, *valid.ids], [*train.texts, *valid.texts], labels, train.label_names)


def _raw_texts(paths: Paths, progress: Progress) -> list[str]:
    """The documents of unlabelled files, cleaned and without near-copies as for training a language model."""
    if not paths:
        return []
    corpus = prepare_corpus([Path(path) for path in paths], cache_dir=cache_folder(), progress=progress)
    return [*corpus.texts("train"), *corpus.texts("valid")]


def _worth_saying(table: LabelledTable, gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the user should hear before anything is trained: guesses, rows left out, and what the gates found."""
    reasons = Counter(row.reason for row in table.rejected)
    left_out = [f"{count:,} rows are left out: {reason}." for reason, count in reasons.most_common()]
    return [*table.guessed, *left_out, *(str(gate["sentence"]) for gate in gates if not gate["passed"])]


def _gates(table: LabelledTable, leaks: Leaks, offered: int, dropped: int) -> list[dict[str, Any]]:
    gates = [finding.as_json() for finding in all_findings(table.items)] + [leaks.finding.as_json()]
    gates += [_gate("data warning", sentence) for sentence in table.warnings]
    if offered:
        sentence = f"{dropped:,} of {offered:,} unlabelled texts were left out, because they give away held-out items."
        gates.append(_gate("text for pretraining", sentence, passed=True, count=dropped, share=dropped / offered))
    return gates


def _gate(
    name: str, sentence: str, *, passed: bool = False, count: int | None = None, share: float | None = None
) -> dict[str, Any]:
    return {"name": name, "passed": passed, "count": count, "share": share, "sentence": sentence, "examples": []}


def _facts(
    table: LabelledTable, items: Mapping[Part, LabelledItems], split: Split, gates: list[dict[str, Any]], *, leaked: int
) -> dict[str, Any]:
    names = table.items.label_names
    counts = {part: np.bincount(items[part].labels, minlength=len(names)).tolist() for part in _PARTS}
    classes = [{"label": name, **{part: counts[part][number] for part in _PARTS}} for number, name in enumerate(names)]
    return {
        "files": table.files,
        "sha256": table.items.sha256,
        "target": table.target,
        "text_columns": list(table.text_columns),
        "guessed": table.guessed,
        "rows": len(table.items) + len(table.rejected),
        "rejected": dict(Counter(row.reason for row in table.rejected)),
        "classes": sorted(classes, key=lambda one: (-one["train"], one["label"])),
        "split": {"method": split.method, "sha256": split.sha256, "notes": split.notes, "leaked": leaked}
        | {part: len(items[part]) for part in _PARTS},
        "profile": profile(table.items).sentences,
        "gates": gates,
    }
