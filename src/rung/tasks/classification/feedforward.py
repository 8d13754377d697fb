"""The feed-forward rung: fastText's classifier, trained by the one loop and predicting from plain arrays.

The mean of word and hashed n-gram embeddings, then a linear layer. Losses are softmax and one-vs-all. fastText's third,
the hierarchical softmax, is left out: it saves time where classes are so many (its paper: 312,000) that the output
layer is the work, and costs accuracy; with hundreds of classes the embedding rows are the work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rung.data.labelled import LabelledItems
from rung.data.ngrams import HashedNgramFinder, HashedNgrams, Ragged
from rung.data.order import SampleOrder
from rung.errors import PlanError, RunFolderError
from rung.nets.counting import SparseRows, softmax, weighted_sums
from rung.progress import Progress
from rung.tasks.classification.initial_vectors import planned, require_planned
from rung.tasks.classification.predictions import Predictions
from rung.tasks.classification.saving import header, label_config, load_arrays, save_arrays
from rung.tasks.task import FitReport, Indices, Plan, UsualRung

if TYPE_CHECKING:
    from torch import Tensor

    from rung.nets.bag import BagClassifier
    from rung.objectives.classification import ClassLoss
    from rung.training.contracts import LoopResult, Validation

MODEL_TYPE = "rung-feedforward"
_DEFAULTS: Plan = {
    "hidden_size": 16,
    "ngrams": 2,
    "buckets": 1 << 21,
    "batch_size": 256,
    "learning_rate": 0.3,
    "epochs": 25,
    "patience": 3,
    "loss": "softmax",
}
_FEWEST_STEPS_PER_EPOCH = 16  # few items are trained in smaller batches, down to one by one
_WARM_UP_STEPS, _TIMED_STEPS = 3, 20
_BUDGET_SHARE = 0.8  # of the seconds of a fit, for reading and steps; the rest is for files
_TEXTS_AT_ONCE = 4096


class FeedForwardPredictor:
    """Probabilities from embeddings (rows, hidden) and output weights (classes, hidden), in numpy."""

    def __init__(self, ngrams: HashedNgrams, tensors: dict[str, NDArray[Any]], loss: ClassLoss) -> None:
        self._finder = HashedNgramFinder(ngrams)
        self._embeddings, self._weights = tensors["embeddings.weight"], tensors["classifier.weight"]
        self._shares = tensors["class_counts"] / tensors["class_counts"].sum()
        self._loss = loss
        # The network is linear: the mean of rows times weights is the mean of (rows times weights).
        self._scores = self._embeddings.astype(np.float64) @ self._weights.T.astype(np.float64)

    @property
    def num_parameters(self) -> int:
        """Embeddings and output weights."""
        return self._embeddings.size + self._weights.size

    def predict(self, inputs: Sequence[str], *, batch_size: int = 32) -> Predictions:  # noqa: ARG002 - rows are independent
        """Probabilities of `inputs`, the shares of labels where no word is known; the batch size changes nothing."""
        parts = [np.empty((0, len(self._shares)))]
        for start in range(0, len(inputs), _TEXTS_AT_ONCE):
            bags = self._finder(inputs[start : start + _TEXTS_AT_ONCE])
            weights = np.repeat(1 / np.maximum(bags.lengths, 1), bags.lengths)
            scores = weighted_sums(SparseRows(bags.values, weights, bags.lengths), self._scores)
            parts.append(np.where(bags.lengths[:, None], _probabilities(scores, self._loss), self._shares))
        return Predictions(np.concatenate(parts))


def _probabilities(scores: NDArray[np.float64], loss: ClassLoss) -> NDArray[np.float64]:
    if loss == "softmax":
        return softmax(scores)
    each = np.exp(-np.logaddexp(0, -scores))  # one binary model a class, scaled to add up to 1
    result: NDArray[np.float64] = each / each.sum(axis=1, keepdims=True)
    return result


def load(folder: Path) -> FeedForwardPredictor:
    """The feed-forward rung in `folder`. Raises RunFolderError when it holds none."""
    config, tensors, words = load_arrays(folder)
    if config.get("model_type") != MODEL_TYPE:
        raise RunFolderError(f"a model of type '{config.get('model_type')}' is no {MODEL_TYPE}", where=str(folder))
    ngrams = HashedNgrams(tuple(words), tensors["buckets"], config["num_buckets"], config["ngrams"])
    return FeedForwardPredictor(ngrams, tensors, config["loss"])


# Fitting --------------------------------------------------------------------------------------------------------------


class BagBatches:
    """Bags of rows in a stateless order: every item once an epoch, whatever the batch size."""

    def __init__(self, bags: Ragged, labels: NDArray[np.int64], order: SampleOrder | None) -> None:
        """Without an `order`, sample k is item k."""
        self._values, self._lengths, self._labels = bags.values, bags.lengths, labels
        self._starts = np.cumsum(bags.lengths) - bags.lengths
        self._order = order

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        """`input_ids` (total,), `offsets` (batch,) and `labels` (batch,)."""
        import torch

        items = sample_numbers if self._order is None else self._order.locate(sample_numbers)[1]
        lengths = self._lengths[items]
        offsets = np.cumsum(lengths) - lengths
        places = np.repeat(self._starts[items] - offsets, lengths) + np.arange(int(lengths.sum()))
        arrays = {"input_ids": self._values[places], "offsets": offsets, "labels": self._labels[items]}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class FeedForwardRung(UsualRung):
    """fastText's model, trained from the labelled texts alone."""

    name = "feedforward"
    description = "averaged embeddings of words and word pairs (fastText's model)"
    height = 3

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:
        """The number of epochs that fits into `seconds`, from timing a few real steps.

        Raises PlanError when not even one epoch fits.
        """
        defaults = {**_DEFAULTS, **planned(task.vectors)}
        if task.vectors is not None:
            defaults["hidden_size"] = task.vectors.size
        if seconds is None:
            return defaults
        began = time.perf_counter()
        fit = _Fit(task, defaults, np.arange(len(task.items["train"])), seed)
        preparing = time.perf_counter() - began
        epoch = fit.seconds_per_epoch()
        epochs = int((_BUDGET_SHARE * seconds - preparing) / epoch)
        if epochs < 1:
            raise PlanError(
                f"one pass over {len(fit.train):,} texts does not fit into {seconds:.1f} s: with reading it takes "
                f"about {(preparing + epoch) / _BUDGET_SHARE:.1f} s",
                where=f"rung {self.name}",
                hint="give more minutes, or leave this rung out with --rungs",
            )
        return {**defaults, "epochs": min(defaults["epochs"], epochs)}

    def fit(self, task: Any, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress) -> FitReport:
        """Train until validation stops improving; the best epoch's weights are kept."""
        wall, cpu = time.perf_counter(), time.process_time()
        fit = _Fit(task, plan, items, seed)
        result = fit.run(folder, progress)
        fit.save(folder, header(self.name, plan, fit.train, seed=seed))
        notes = [fit.vectors_note] if fit.vectors_note else []
        if result.ended == "stopped early":
            notes.append(f"stopped after epoch {result.step // fit.steps_per_epoch}: validation got no better")
        return FitReport(
            seconds=time.perf_counter() - wall,
            cpu_seconds=time.process_time() - cpu,
            finished=True,
            note="; ".join(notes),
            steps=result.step,
            epochs=result.step * fit.settings.batch_size / len(items),
        )


class _Fit:
    """The n-grams of the training items, their bags, and a network with its optimiser."""

    def __init__(self, task: Any, plan: Plan, items: Indices, seed: int) -> None:
        import torch

        from rung.nets.bag import BagClassifier
        from rung.objectives.classification import Classification
        from rung.training.contracts import LoopSettings
        from rung.training.guards import GuardSettings
        from rung.training.row_optimizer import RowAdagrad
        from rung.training.schedule import Schedule

        self.task, self.plan = task, plan
        self.train: LabelledItems = task.items["train"].take(items)
        self.valid: LabelledItems = task.items["valid"]
        self.ngrams = HashedNgrams.learn(self.train.texts, plan["ngrams"], plan["buckets"])
        find = HashedNgramFinder(self.ngrams)
        self.batches = BagBatches(find(self.train.texts), self.train.labels, SampleOrder(len(items), seed))
        self.held_out = BagBatches(find(self.valid.texts), self.valid.labels, None)
        self.net: BagClassifier = BagClassifier(
            len(self.ngrams),
            plan["hidden_size"],
            len(task.label_names),
            generator=torch.Generator().manual_seed(seed),
        )
        self.vectors_note = self._start_from_vectors()
        self.objective = Classification(loss=plan["loss"])
        self.optimizer = RowAdagrad(self.net, plan["learning_rate"])
        batch_size: int = max(1, min(plan["batch_size"], len(items) // _FEWEST_STEPS_PER_EPOCH))
        self.steps_per_epoch = -(-len(items) // batch_size)
        self.settings = LoopSettings(
            schedule=Schedule.warmup_flat_decay(
                plan["epochs"] * self.steps_per_epoch, warmup=0, decay_fraction=1.0, final=0.0
            ),
            batch_size=batch_size,
            micro_batch_size=batch_size,
            seed=seed,
            gradient_clip=None,
            validate_every=self.steps_per_epoch if len(self.valid) else None,
            patience=plan["patience"] if len(self.valid) else None,
            keep_last=1,
            log_every=self.steps_per_epoch,
            guard=GuardSettings(spike_threshold=None),  # a loss near zero is the aim, the rare hard text worth the most
        )

    def _start_from_vectors(self) -> str:
        """Begin with the task's word vectors, if any; says how many words they cover. Rows of n-grams stay as drawn.

        The vectors keep their length, as with fastText's -pretrainedVectors: the first steps would overwrite them at
        the small spread that rows are drawn with here.
        """
        initial, words = self.task.vectors, self.ngrams.words
        require_planned(self.plan, initial)
        if initial is None:
            return ""
        if initial.frozen:
            self.net.freeze_rows(len(words))
        table = self.net.embeddings.weight.detach().numpy()[: len(words)]
        note: str = initial.initialise(table, words, as_drawn=False)
        return note

    def run(self, folder: Path, progress: Progress) -> LoopResult:
        """Train; the network then has the weights that did best on validation items, without any the last ones."""
        from rung.tasks.classification.network_training import threads_of, train_to_best

        with threads_of(self.task.threads):
            return train_to_best(
                self.net,
                self.objective,
                self.batches,
                self.optimizer,
                self.settings,
                validate=self._validate if len(self.valid) else None,
                near=folder,
                label="feedforward",
                progress=progress,
            )

    def seconds_per_epoch(self) -> float:
        """Seconds of one pass over the training items and one validation, from timing a few real steps."""
        from rung.tasks.classification.network_training import threads_of
        from rung.training.distributed import alone
        from rung.training.gradients import BatchGradient

        gradient = BatchGradient(
            net=self.net,
            objective=self.objective,
            batches=self.batches,
            optimizer=self.optimizer,
            settings=self.settings,
            world=alone(),
        )
        times: list[float] = []
        with threads_of(self.task.threads):
            for step in range(_WARM_UP_STEPS + _TIMED_STEPS):
                began = time.perf_counter()
                gradient.compute(step * self.settings.batch_size, lambda: 0)
                self.optimizer.step(1.0)
                times.append(time.perf_counter() - began)
            began = time.perf_counter()
            if len(self.valid):
                self._validate()
            validating = time.perf_counter() - began
        return mean(times[_WARM_UP_STEPS:]) * self.steps_per_epoch + validating

    def save(self, folder: Path, head: dict[str, Any]) -> None:
        """Write the run folder."""
        weights = {name: tensor.numpy() for name, tensor in self.net.state_dict().items()}
        class_counts = np.bincount(self.train.labels, minlength=len(self.task.label_names))
        config = {
            **label_config(MODEL_TYPE, self.task.label_names),
            "hidden_size": self.plan["hidden_size"],
            "ngrams": self.plan["ngrams"],
            "num_buckets": self.plan["buckets"],
            "loss": self.plan["loss"],
        }
        save_arrays(
            folder,
            head,
            config=config,
            tensors={**weights, "buckets": self.ngrams.buckets, "class_counts": class_counts},
            vocabulary=self.ngrams.words,
        )

    def _validate(self) -> Validation:
        """The fewest errors are best, of equals the smallest loss."""
        from rung.training.contracts import Validation
        from rung.training.distributed import alone
        from rung.training.validation import mean_loss

        found = mean_loss(
            self.net,
            self.objective,
            self.held_out,
            samples=len(self.valid),
            batch_size=_TEXTS_AT_ONCE,
            world=alone(),
        )
        loss, accuracy = found["loss"], found["correct"]
        tie_break = loss / (1 + loss) / len(self.valid)  # less than one error, whatever the loss
        return Validation(1 - accuracy + tie_break, {"accuracy": accuracy, "loss": loss})
