"""The neural rungs of the classification ladder: one way of planning, fitting and storing for all families."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from rung.data.label_batches import LabelBatches
from rung.data.labelled import LabelledItems
from rung.data.text_encoder import TextEncoder, train_words
from rung.errors import PlanError
from rung.nets.classifier import Classifier, build_classifier
from rung.nets.classifier_folder import save_classifier
from rung.nets.convolution import ConvolutionConfig
from rung.nets.recurrent import Cell, RecurrentConfig
from rung.objectives.classification import Classification
from rung.progress import SILENT, Progress
from rung.runfolder import write_folder
from rung.tasks.classification.network_predictor import NetworkPredictor, load
from rung.tasks.classification.network_training import (
    LabelledTexts,
    Training,
    device,
    seconds_per_epoch,
    threads_of,
    train_classifier,
)
from rung.tasks.task import FitReport, Indices, Plan
from rung.version import __version__

__all__ = ["NetworkPredictor", "NetworkRung", "cnn", "gru", "load", "lstm", "rnn"]

_LENGTH_SHARE = 0.98
"""Texts longer than this share of the training texts are cut to its length."""
_BUDGET_SHARE = 0.8
"""Of the seconds of a fit, for its steps; the rest is for reading, validation and files."""
_FEW_EPOCHS = 3
_SHORTEST = 32
"""While fewer epochs fit, texts are cut shorter, down to so many tokens: most texts say early what they are about."""


@dataclass(frozen=True)
class Start:
    """Where a fit begins: a network, the encoder that belongs to it, and what went before, in seconds."""

    net: Classifier
    encoder: TextEncoder
    pretraining_seconds: float = 0.0
    note: str = ""


class Family(Protocol):
    """What sets a rung's networks apart: where tokens and first weights come from."""

    @property
    def longest(self) -> int:
        """The most tokens of a text that its networks should read."""
        ...

    def untrained(self, task: Any, items: Indices) -> Start:
        """A start of the right shape for timing; its weights do not matter."""
        ...

    def start(self, task: Any, plan: Plan, items: Indices, *, seed: int, progress: Progress) -> Start:
        """The start of a fit on `items`."""
        ...


@dataclass(frozen=True)
class WordNetworks:
    """Networks over word vectors that are learned from the labelled texts alone."""

    config: Callable[[int], ConvolutionConfig | RecurrentConfig]
    longest: int = 400
    max_vocabulary: int = 30_000

    def untrained(self, task: Any, items: Indices) -> Start:
        """See `Family`."""
        return self.start(task, {}, items, seed=0, progress=SILENT)

    def start(self, task: Any, plan: Plan, items: Indices, *, seed: int, progress: Progress) -> Start:  # noqa: ARG002
        """See `Family`."""
        encoder = train_words(_texts(task, items), max_vocabulary=self.max_vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = build_classifier(self.config(encoder.vocab_size), len(task.label_names))
        return Start(net, encoder)


@dataclass(frozen=True)
class NetworkRung:
    """One neural rung; `family` says what its networks start from, `training` how they are trained by default."""

    name: str
    description: str
    height: int
    family: Family
    training: Training
    is_pretrained_language_model: bool = False

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:
        """Choose where texts are cut off and, from timed steps, how many epochs fit into `seconds`; see `Rung.plan`."""
        began = time.perf_counter()
        everything = np.arange(len(task.items["train"]))
        start = self.family.untrained(task, everything)
        items: LabelledItems = task.items["train"]
        texts = start.encoder.encode(items.texts, max_length=self.family.longest)
        max_length = int(np.quantile(texts.lengths, _LENGTH_SHARE, method="higher"))
        training = self.training
        if seconds is not None:
            left = _BUDGET_SHARE * (seconds - (time.perf_counter() - began))
            training, max_length = self._affordable(task, start, items, left, max_length)
        return {
            "rung": self.name,
            "seed": seed,
            "max_length": max_length,
            "longer_share": float((texts.lengths > max_length).mean()),
            "training": asdict(training),
        }

    def _affordable(
        self, task: Any, start: Start, items: LabelledItems, seconds: float, max_length: int
    ) -> tuple[Training, int]:
        """The training and the length of texts that fit into `seconds`."""
        while True:
            texts = start.encoder.encode(items.texts, max_length=max_length)
            batches = LabelBatches(
                texts,
                items.labels,
                pad_token_id=start.encoder.pad_token_id,
                batch_size=self.training.batch_of(len(items)),
                seed=0,
            )
            with threads_of(task.threads):
                epoch = seconds_per_epoch(start.net.to(device()), Classification(), batches, len(items), self.training)
            epochs = int(seconds / epoch)
            if epochs >= _FEW_EPOCHS or max_length <= _SHORTEST:
                break
            max_length = max(_SHORTEST, max_length // 2)
        if epochs < 1:
            raise PlanError(
                f"not one pass over {len(items):,} texts fits into {seconds:.1f} s: it takes {epoch:.1f} s",
                where=f"rung {self.name}",
                hint="give more minutes, or leave this rung out with --rungs",
            )
        epochs = min(epochs, self.training.epochs)
        steps = epochs * len(items) // self.training.batch_of(len(items))
        training = replace(self.training, epochs=epochs, least_steps=min(self.training.least_steps, max(1, steps)))
        return training, max_length

    def fit(self, task: Any, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress) -> FitReport:
        """Train on `items`, keep the weights that do best on the validation items; see `Rung.fit`."""
        began, cpu_began = time.perf_counter(), time.process_time()
        training = Training(**plan["training"])
        with threads_of(task.threads):
            start = self.family.start(task, plan, items, seed=seed, progress=progress)
            parts = {"train": task.items["train"].take(items), "valid": task.items["valid"]}
            encoded = {
                name: LabelledTexts(start.encoder.encode(part.texts, max_length=plan["max_length"]), part.labels)
                for name, part in parts.items()
            }
            result = train_classifier(
                start.net.to(device()),
                encoded["train"],
                encoded["valid"],
                training,
                pad_token_id=start.encoder.pad_token_id,
                seed=seed,
                near=folder,
                label=f"{self.name}: training",
                progress=progress,
            )
        self._save(start, plan, parts["train"], seed, folder)
        truncated = encoded["train"].texts.truncated / max(1, len(items))
        batch = training.batch_of(len(items))
        return FitReport(
            seconds=time.perf_counter() - began,
            cpu_seconds=time.process_time() - cpu_began,
            finished=True,
            note="; ".join(
                filter(
                    None, [start.note, f"texts are read up to {plan['max_length']} tokens ({truncated:.1%} are longer)"]
                )
            ),
            steps=result.step,
            epochs=result.step * batch / len(items),
            chosen={
                "best_step": result.best_checkpoint and int(result.best_checkpoint.name.rpartition("-")[2]),
                "ended": result.ended,
                "truncated": truncated,
            },
        )

    def _save(self, start: Start, plan: Plan, items: LabelledItems, seed: int, folder: Path) -> None:
        def fill(target: Path) -> None:
            save_classifier(start.net.cpu(), target, items.label_names)
            start.encoder.save(target, model_max_length=plan["max_length"])

        header = {
            "rung_version": __version__,
            "task": "classification",
            "rung": self.name,
            "state": "finished",
            "recipe": {**plan, "fit_seed": seed},
            "data": {"sha256": items.sha256, "items": len(items)},
        }
        write_folder(folder, fill, header)


def _texts(task: Any, items: Indices) -> list[str]:
    texts: Sequence[str] = task.items["train"].texts
    return [texts[number] for number in items.tolist()]


def cnn() -> NetworkRung:
    """Kim's convolutional network (2014), from random word vectors."""
    return NetworkRung(
        "cnn",
        "a convolutional network that looks for telling phrases of 3 to 5 words",
        4,
        WordNetworks(lambda words: ConvolutionConfig(vocab_size=words)),
        Training(epochs=15, batch_size=50, learning_rate=1e-3),
    )


def _recurrent(cell: Cell, description: str, learning_rate: float) -> NetworkRung:
    return NetworkRung(
        cell,
        description,
        5,
        WordNetworks(lambda words: RecurrentConfig(vocab_size=words, cell=cell)),
        Training(epochs=12, batch_size=50, learning_rate=learning_rate),
    )


def rnn() -> NetworkRung:
    """A simple recurrent network (Elman 1990) in both directions with attention pooling."""
    return _recurrent("rnn", "a simple recurrent network that reads word by word, in both directions", 1e-3)


def lstm() -> NetworkRung:
    """A bidirectional LSTM (Hochreiter and Schmidhuber 1997) with attention pooling."""
    return _recurrent("lstm", "a recurrent network with a memory (LSTM) that reads in both directions", 2e-3)


def gru() -> NetworkRung:
    """A bidirectional GRU (Cho et al. 2014) with attention pooling."""
    return _recurrent("gru", "a recurrent network with a simpler memory (GRU) that reads in both directions", 2e-3)
