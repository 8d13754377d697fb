"""Tuning MiniLM on five published sets: ours against a plain transformers loop with the same steps and rate.

    python bench/tune_classifier.py                              all sets, three epochs: hours on two cores
    python bench/tune_classifier.py --sets trec --epochs 1
    python bench/tune_classifier.py --sets trec,sms-spam --seconds 60      as many steps as fit, of the whole schedule

Both begin with the same weights and get the same texts, batch size, number of steps, learning rate, warm-up and decay.
Theirs is `AutoModelForSequenceClassification` and what transformers' Trainer does by default: float32, AdamW (fused),
shuffled batches padded to their longest text, gradients clipped at 1. Ours is the loop of `rung tune` as the command
plans it, without validation and checkpoints. The two take turns, `--turn` steps each, in this one process; medians of
texts per second are compared. A ratio above 1: Rung is faster. Accuracy is that of the test items of the published
split (of MR and SMS spam, which have none, of a tenth and a fifth drawn at random).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rung.data.labelled import LabelledItems, item_ids
from rung.evaluation.intervals import difference_interval
from rung.evaluation.summed import SummedScores
from rung.objectives.classification import Classification
from rung.records import ItemScores
from rung.tasks.bases import resolve_base
from rung.tasks.classification.network_predictor import NetworkPredictor
from rung.tasks.classification.network_training import course_of, optimizer_of, threads_of, training_of
from rung.tasks.classification.sequence_folder import FolderNetworks
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.classification.tuning_plan import encoded, loop_settings, make_plan, start_of
from rung.tasks.classification.tuning_recipe import ClassifyRecipe
from rung.tasks.tuning.method import TuningMethod
from rung.training import loop
from rung.training.machine import usable_cores

SETS = ("sms-spam", "mr", "sst2", "trec", "clinc150")
_LONGEST = 256  # tokens that the baseline reads: MiniLM's own limit


@dataclass(frozen=True)
class Data:
    """Texts and labels to train on and to test on."""

    train: list[tuple[str, str]]
    test: list[tuple[str, str]]


def read_set(name: str, folder: Path) -> Data:
    """One of the sets as published."""
    if name == "sms-spam":
        lines = (folder / "sms-spam" / "SMSSpamCollection.tsv").read_text(encoding="utf-8").splitlines()
        return _cut([(text, label) for label, text in (line.split("\t", 1) for line in lines)], 0.2)
    if name == "mr":
        return _cut(_rows(folder / "mr" / "all.jsonl"), 0.1)
    if name == "sst2":
        return Data(_rows(folder / "sst" / "sst2.train.jsonl"), _rows(folder / "sst" / "sst2.test.jsonl"))
    return Data(_rows(folder / name / "train.jsonl"), _rows(folder / name / "test.jsonl"))


def _rows(path: Path) -> list[tuple[str, str]]:
    rows = map(json.loads, path.read_bytes().splitlines())  # in bytes: a text may hold U+0085, no end of a line
    return [(row["text"], str(row["label"])) for row in rows]


def _cut(rows: list[tuple[str, str]], share: float) -> Data:
    random.Random(0).shuffle(rows)  # noqa: S311 - a split, not a secret
    test = round(len(rows) * share)
    return Data(rows[test:], rows[:test])


def as_task(data: Data, threads: int) -> ClassificationTask:
    """The same items in the form that our training takes; repeated rows are repeated here too."""
    names = tuple(sorted({label for _, label in data.train}))

    def items(rows: list[tuple[str, str]]) -> LabelledItems:
        texts, labels = [text for text, _ in rows], [label for _, label in rows]
        numbers = np.array([names.index(label) for label in labels], dtype=np.int64)
        return LabelledItems(item_ids(texts, labels), texts, numbers, names)

    parts = {"train": items(data.train), "valid": items([]), "test": items(data.test)}
    return ClassificationTask(parts, threads=threads)  # type: ignore[arg-type]


class Plain:
    """The loop that transformers' Trainer runs by default, one step at a time."""

    def __init__(
        self, folder: Path, task: ClassificationTask, *, batch: int, steps: int, rate: float, seed: int
    ) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

        torch.manual_seed(seed)
        train = task.items["train"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.net = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(task.label_names)).train()
        self.encoded = self.tokenizer(train.texts, truncation=True, max_length=_LONGEST)["input_ids"]
        self.labels = torch.from_numpy(train.labels)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=0.01, fused=True)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, round(0.1 * steps), steps)
        self.batch, self.generator, self.queue = batch, torch.Generator().manual_seed(seed), []
        self.step_number = 0

    def step(self) -> int:
        """One optimiser step; the number of texts."""
        if not self.queue:
            order = torch.randperm(len(self.encoded), generator=self.generator).tolist()
            self.queue = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]
        rows = self.queue.pop(0)
        inputs = self.tokenizer.pad({"input_ids": [self.encoded[row] for row in rows]}, return_tensors="pt")
        loss = self.net(**inputs, labels=self.labels[rows]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return len(rows)

    @torch.inference_mode()
    def right(self, items: LabelledItems) -> NDArray[np.bool_]:
        """Which items are answered right."""
        self.net.eval()
        order = sorted(range(len(items)), key=lambda row: len(items.texts[row]))
        right = np.zeros(len(items), dtype=np.bool_)
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            texts = [items.texts[row] for row in rows]
            inputs = self.tokenizer(texts, truncation=True, max_length=_LONGEST, padding=True, return_tensors="pt")
            right[rows] = self.net(**inputs).logits.argmax(1).numpy() == items.labels[rows]
        return right


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train both on one set; their accuracies and speeds."""
    data = read_set(name, options.data)
    threads = options.threads or usable_cores()
    task, folder = as_task(data, threads), resolve_base(options.base)
    recipe = ClassifyRecipe(base=options.base, method=TuningMethod().to_json(), seed=options.seed).with_overrides(
        {"training.epochs": options.epochs, "training.threads": threads, "training.learning_rate": options.rate}
    )
    family = FolderNetworks.open(folder)
    with threads_of(threads):
        recipe = make_plan(recipe, family, task, seconds=None).recipe
        start, items = start_of(recipe, family, task), task.items["train"]
        train, nothing = (encoded(start, task.items[part], recipe) for part in ("train", "valid"))
        training = training_of(recipe.training, recipe.learning_rate)
        settings = replace(loop_settings(recipe, len(items), validated=False), checkpoint_every=None)
        steps = settings.schedule.steps
        course = course_of(start.net, train, nothing, training, pad_token_id=start.encoder.pad_token_id, seed=0)
        plain = Plain(folder, task, batch=settings.batch_size, steps=steps, rate=recipe.learning_rate, seed=0)
        ours, theirs = _take_turns(start, course, training, settings=settings, plain=plain, options=options)
        predictor = NetworkPredictor(start.net, start.encoder, max_length=recipe.training.max_length)
        test = task.items["test"]
        right = predictor.predict(task.inputs("test"), batch_size=64).labels == test.labels
        right_by_transformers = plain.right(test)
    lead = difference_interval(_scores(test, right), _scores(test, right_by_transformers))
    found = {
        "steps": plain.step_number,
        "of_steps": steps,
        "precision": recipe.training.precision,
        "accuracy": float(right.mean()),
        "accuracy_transformers": float(right_by_transformers.mean()),
        "difference_interval": [round(lead.low, 4), round(lead.high, 4)] if lead else None,
        "texts_per_second": statistics.median(ours),
        "texts_per_second_transformers": statistics.median(theirs),
        "ratio": statistics.median(ours) / statistics.median(theirs),
        "test_items": len(test),
    }
    print(
        f"{name}: "
        + ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()
        )
    )
    return found


def _scores(items: LabelledItems, right: NDArray[np.bool_]) -> SummedScores:
    return SummedScores.of_items(ItemScores(list(items.ids), right.astype(np.float64), np.ones(len(right))))


class _OutOfTime(Exception):  # noqa: N818 - no error: the part that was asked for is done
    pass


def _take_turns(
    start: Any, course: Any, training: Any, *, settings: Any, plain: Plain, options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Texts per second of each turn, of ours and of theirs. Theirs run inside a hook of our loop, between our steps."""
    ours: list[float] = []
    theirs: list[float] = []
    began = last = time.perf_counter()

    def their_turn(step: int) -> None:
        nonlocal last
        if step % options.turn and step != settings.schedule.steps:
            return
        now = time.perf_counter()
        if step:
            ours.append(options.turn * settings.batch_size / (now - last))
        if options.seconds is not None and now - began > options.seconds:
            raise _OutOfTime
        texts = sum(plain.step() for _ in range(min(options.turn, settings.schedule.steps - step)))
        plain.step_number += min(options.turn, settings.schedule.steps - step)
        last = time.perf_counter()
        theirs.append(texts / (last - now))

    with tempfile.TemporaryDirectory() as scratch, suppress(_OutOfTime):
        loop.train(
            start.net,
            Classification(),
            course.batches,
            optimizer_of(start.net, training),
            settings,
            run_folder=Path(scratch),
            save_model=None,
            before_step=their_turn,
        )
    return ours[1:] or ours, theirs[1:] or theirs


def main() -> None:
    """Print a line for each set, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--rate", type=float, help="the learning rate of both")
    parser.add_argument("--seconds", type=float, help="of both together, for each set")
    parser.add_argument("--turn", type=int, default=20, help="steps")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps({name: run(name, options) for name in options.sets.split(",")}))


if __name__ == "__main__":
    main()
