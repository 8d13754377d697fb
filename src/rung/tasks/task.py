"""The seam between a task and the comparison: what a ladder needs to know of any task, and nothing more.

A task (text classification, rewriting; tagging and answering next) says which rungs can do it,
cuts its items into train, validation and test, and scores predictions. The comparison fits, times, measures and judges
rungs through these protocols alone, so a new task plugs in here without the comparison changing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rung.evaluation.summed import SummedScores
from rung.progress import Progress
from rung.records import ItemScores, Record

Part = Literal["train", "valid", "test"]
Indices = NDArray[np.int64]
Plan = dict[str, Any]
"""All that a fit needs beside data and seed, as plain JSON values: an equal plan gives an equal fit, no clock read."""


@dataclass(frozen=True)
class FitReport:
    """How a fit went. `note` is for people: what was chosen, or why it ended early.

    `validation_score`: the primary metric on validation items where the fit has measured it itself, because asking for
    it again would cost money.
    """

    seconds: float
    cpu_seconds: float
    finished: bool
    note: str = ""
    steps: int | None = None
    epochs: float | None = None
    validation_score: float | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)  # hyper-parameters, chosen on validation only


class Predicted(Protocol):
    """Predictions of some items, in the task's own form."""

    @property
    def numbers(self) -> NDArray[np.float64]:
        """(items, k): what two predictions of the same items are compared by, bit for bit."""
        ...

    @property
    def answers(self) -> list[Any]:
        """The answer for each item, as a plain value."""
        ...


class Predictor(Protocol):
    """A fitted rung, loaded from its run folder."""

    @property
    def num_parameters(self) -> int | None:
        """Learned numbers that a prediction can use; None when nobody knows (an endpoint)."""
        ...

    def predict(self, inputs: Sequence[Any], *, batch_size: int = 32) -> Predicted:
        """Predictions for `inputs`, in their order."""
        ...


class AskedPredictor(Predictor, Protocol):
    """A predictor that asks a language model, perhaps elsewhere and for money: it tells what was said and its cost."""

    @property
    def is_local(self) -> bool:
        """Whether the model that is asked is in this process: nothing is paid, and no answer is cached."""
        ...

    @property
    def cost_per_1000(self) -> Record:
        """The cost of 1,000 items, from what was asked so far."""
        ...

    def details(self) -> dict[str, Any]:
        """What the report shows of prompts, failures, tokens, cost and time."""
        ...

    def answer_variation(self, texts: Sequence[str], *, samples: int = 5) -> dict[str, Any]:
        """How much answers to the same texts vary over samples."""
        ...


class Rung(Protocol):
    """One candidate on a ladder."""

    @property
    def name(self) -> str:
        """The name on the command line, in folders and in reports: `naive-bayes`."""
        ...

    @property
    def description(self) -> str:
        """One phrase for people who do not know the name."""
        ...

    @property
    def height(self) -> int:
        """The place on the ladder: 0 majority, 1 counting, 2 linear, 3 feed-forward ... 9 prompted LLM."""
        ...

    @property
    def is_pretrained_language_model(self) -> bool:
        """Whether it stands on a language model trained before, on other text: only then may it stand for "an LLM"."""
        ...

    @property
    def is_random(self) -> bool:
        """Whether two seeds give two different fits on the same items."""
        ...

    @property
    def learns(self) -> bool:
        """Whether more labels make a better fit: what does not learn has no learning curve."""
        ...

    @property
    def shared_share(self) -> float:
        """The share of the `seconds` of a plan that is spent once for all fits: on pretraining."""
        ...

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:
        """Decide, perhaps by timing a few real steps, what fits into `seconds` of one fit on all training items.

        None: no clock is read and the defaults hold. Raises PlanError when not even one pass fits.
        """
        ...

    def is_undertrained(self, plan: Plan) -> bool:
        """Whether a fit by `plan` has fewer steps than any fit wants: then one longer fit says more than several."""
        ...

    def fit(self, task: Any, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress) -> FitReport:
        """Fit on the training items `items` (choices by validation items only) and leave a run folder at `folder`."""
        ...


class UsualRung:
    """What holds for most rungs; a rung states only where it differs. See `Rung` for what each means."""

    is_pretrained_language_model = False
    is_random = True
    learns = True
    shared_share = 0.0

    def is_undertrained(self, plan: Plan) -> bool:  # noqa: ARG002 - of most rungs a plan always suffices
        """See `Rung`."""
        return False


class Task(Protocol):
    """Labelled items cut into parts, the rungs that can learn them, and how predictions are scored."""

    @property
    def name(self) -> str:
        """The task's name in folders and reports."""
        ...

    @property
    def primary_metric(self) -> str:
        """The metric that the verdict rests on; larger is better."""
        ...

    @property
    def pipeline_tag(self) -> str:
        """What the Hugging Face hub calls this task."""
        ...

    @property
    def sha256(self) -> str:
        """The identity of all items and of the part that each is in."""
        ...

    def power(self, margin: float) -> dict[str, Any]:
        """What so many test items can decide, told before the first fit: {"sentence": ..., and what it rests on}."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What `report.json` tells of the data: the fields of its `DataFound` without `power`."""
        ...

    def rungs(self, names: Sequence[str] | None) -> list[Rung]:
        """The rungs that fit this task, or those named, from the lowest up. UsageError for an unknown name."""
        ...

    def inputs(self, part: Part) -> Sequence[Any]:
        """What a predictor is given, in the order of `ids(part)`."""
        ...

    def ids(self, part: Part) -> list[str]:
        """The item ids of a part: a function of the content, not of the order of rows."""
        ...

    def primary(self, predictions: Any, part: Part) -> ItemScores | SummedScores:
        """The primary metric by item: larger is better."""
        ...

    def score(self, predictions: Any, validation: Any) -> tuple[list[Record], dict[str, ItemScores]]:
        """All quality records of test predictions, and per-item scores of those metrics that are means over items.

        `validation`: the same rung's predictions for validation items, for what is fitted there; None without.
        """
        ...

    def details(self, predictions: Any, part: Part) -> dict[str, Any]:
        """What the report shows beside the records: tables by class, confusion, reliability, groups."""
        ...

    def write_predictions(self, path: Path, predictions: Mapping[Part, Any]) -> None:
        """Keep predictions by part, so that a comparison can go on after a crash."""
        ...

    def read_predictions(self, path: Path, part: Part) -> Any:
        """What `write_predictions` kept."""
        ...

    def differing(self, first: Any, second: Any, part: Part) -> list[dict[str, str]]:
        """Items that two rungs answer differently: {id, text, label, first, second}, for people to read."""
        ...

    def learning_sizes(self) -> list[int]:
        """Sizes of nested training subsets for a learning curve, ascending, the last one all items."""
        ...

    def learning_subset(self, size: int, *, seed: int) -> tuple[Task, Indices]:
        """`size` training items, and this task with a validation part that is small in the same proportion.

        For one seed, a smaller subset lies inside every larger one.
        """
        ...
