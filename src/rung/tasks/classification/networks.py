"""The neural rungs of the classification ladder: one way of planning, fitting and storing for all families."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rung.data.label_batches import LabelBatches
from rung.data.labelled import LabelledItems
from rung.errors import PlanError
from rung.nets.classifier_folder import save_classifier
from rung.nets.convolution import ConvolutionConfig
from rung.nets.recurrent import Cell, RecurrentConfig
from rung.objectives.classification import Classification
from rung.progress import Progress
from rung.runfolder import write_folder
from rung.tasks.classification.families import Family, Start, WordNetworks
from rung.tasks.classification.network_predictor import NetworkPredictor, load
from rung.tasks.classification.network_training import (
    LabelledTexts,
    Training,
    device,
    threads_of,
    timed_step,
    train_classifier,
)
from rung.tasks.classification.pretraining import TransformerNetworks
from rung.tasks.classification.saving import header, label_config
from rung.tasks.task import FitReport, Indices, Plan, UsualRung
from rung.training.contracts import Precision

__all__ = [
    "NetworkPredictor",
    "NetworkRung",
    "cnn",
    "decoder",
    "encoder",
    "encoder_pretrained",
    "gru",
    "load",
    "lstm",
    "rnn",
]

_LENGTH_SHARE = 0.98
"""Texts longer than this share of the training texts are cut to its length."""
_BUDGET_SHARE = 0.8
"""Of the seconds of a fit, for its steps; the rest is for reading, validation and files."""
_FEW_EPOCHS = 3
_SHORTEST = 32
"""While fewer epochs fit, texts are cut shorter, down to so many tokens: most texts say early what they are about."""


@dataclass(frozen=True)
class NetworkRung(UsualRung):
    """One neural rung; `family` says what its networks start from, `training` how they are trained by default."""

    name: str
    description: str
    height: int
    family: Family
    training: Training
    least_epochs: ClassVar[float] = 1.0
    """Passes over the texts without which it is not worth while."""

    @property
    def shared_share(self) -> float:  # type: ignore[override]  # a constant of most rungs, here the family's
        """Pretraining is done once; see `Rung`."""
        return self.family.earlier_share

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:
        """Choose where texts are cut off and, from timed steps, how many epochs fit into `seconds`; see `Rung.plan`."""
        began = time.perf_counter()
        items: LabelledItems = task.items["train"]
        with threads_of(task.threads):
            start = self.family.untrained(task, np.arange(len(items)))
            lengths = start.encoder.encode(items.texts, max_length=self.family.longest).lengths
            max_length = int(np.quantile(lengths, _LENGTH_SHARE, method="higher"))
            training, earlier = self.training, None
            if seconds is not None:
                training, max_length, earlier = self._affordable(start, items, began + seconds, max_length)
            return {
                "rung": self.name,
                "seed": seed,
                "max_length": max_length,
                "training": asdict(training),
                **self.family.plan(task, start, earlier, max_length),
            }

    def is_undertrained(self, plan: Plan) -> bool:
        """See `Rung`."""
        return bool(plan["training"]["least_steps"] < self.training.least_steps)

    def _affordable(
        self, start: Start, items: LabelledItems, ends: float, max_length: int
    ) -> tuple[Training, int, float]:
        """The training and the length of texts that fit until `ends`, by the clock, and the seconds of pretraining."""
        batch = self.training.batch_of(len(items))
        precision: Precision | None = None
        while True:
            precision, step = self._timed(start, items, max_length, precision)
            left = _BUDGET_SHARE * (ends - time.perf_counter())
            seconds = left * (1 - self.family.earlier_share)
            passes = seconds / step * batch / len(items)
            if passes >= _FEW_EPOCHS or max_length <= _SHORTEST:
                break
            max_length = max(_SHORTEST, max_length // 2)
        if passes < self.least_epochs:
            raise PlanError(
                f"one pass over {len(items):,} texts takes {step * len(items) / batch:.1f} s, and there are "
                f"{seconds:.1f} s",
                where=f"rung {self.name}",
                hint="give more minutes, or leave this rung out with --rungs",
            )
        epochs = min(float(int(passes)) if passes >= 1 else passes, self.training.epochs)
        least_steps = min(self.training.least_steps, int(seconds / step))
        training = replace(self.training, epochs=epochs, least_steps=least_steps, precision=precision)
        return training, max_length, left - seconds

    def _timed(
        self, start: Start, items: LabelledItems, max_length: int, precision: Precision | None
    ) -> tuple[Precision, float]:
        """The precision that is given, else the faster one, and its seconds a step."""
        texts = start.encoder.encode(items.texts, max_length=max_length)
        batch = self.training.batch_of(len(items))
        batches = LabelBatches(texts, items.labels, pad_token_id=start.encoder.pad_token_id, batch_size=batch, seed=0)
        return timed_step(
            start.net.to(device()),
            Classification(),
            batches,
            self.training,
            asked=precision,
            samples=len(items),
            seed=0,
        )

    def fit(self, task: Any, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress) -> FitReport:
        """Train on `items`, keep the weights that do best on the validation items; see `Rung.fit`."""
        began, cpu_began = time.perf_counter(), time.process_time()
        training, max_length = Training(**plan["training"]), plan["max_length"]
        with threads_of(task.threads):
            start = self.family.start(task, plan, items, seed=seed, progress=progress)
            started = time.perf_counter()
            chosen, valid = in_order(task.items["train"].take(items)), task.items["valid"]
            train, held_out = (
                LabelledTexts(start.encoder.encode(part.texts, max_length=max_length), part.labels)
                for part in (chosen, valid)
            )
            result = train_classifier(
                start.net.to(device()),
                train,
                held_out,
                training,
                pad_token_id=start.encoder.pad_token_id,
                seed=seed,
                near=folder,
                label=f"{self.name}: training",
                progress=progress,
            )

        def fill(target: Path) -> None:
            start.net.cpu()
            self._save(start, target, chosen.label_names, max_length)

        write_folder(folder, fill, header(self.name, plan, chosen, seed=seed))
        truncated = train.texts.truncated / len(train)
        notes = [start.note] if start.note else []
        notes.append(f"texts are read up to {max_length} tokens; {truncated:.1%} are longer and cut there")
        epoch = training.batch_of(len(train)) / len(train)
        return FitReport(
            seconds=start.earlier_seconds + time.perf_counter() - (started if start.earlier_seconds else began),
            cpu_seconds=time.process_time() - cpu_began,
            finished=True,
            note="; ".join(notes),
            steps=result.step,
            epochs=result.step * epoch,
            chosen={
                "best_epoch": result.best_step and result.best_step * epoch,
                "ended": result.ended,
                "truncated": truncated,
            },
        )

    def _save(self, start: Start, folder: Path, label_names: Sequence[str], max_length: int) -> None:
        """Write network and tokenizer into the existing `folder`."""
        labels = label_config("", label_names)
        save_classifier(start.net, folder, {name: labels[name] for name in ("id2label", "label2id")})
        start.encoder.save(folder, model_max_length=max_length)


def in_order(items: LabelledItems) -> LabelledItems:
    """The items in the order of their ids: where rows stood in a file must not decide any weight."""
    return items.take(np.array(sorted(range(len(items)), key=items.ids.__getitem__), dtype=np.int64))


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


def encoder() -> NetworkRung:
    """A small BERT encoder that has seen the labelled texts only."""
    return NetworkRung(
        "encoder",
        "a small Transformer encoder (BERT's shape), trained from scratch on the labels",
        6,
        TransformerNetworks("encoder", pretrained=False),
        Training(epochs=12, batch_size=32, learning_rate=5e-4, weight_decay=0.01),
    )


def encoder_pretrained() -> NetworkRung:
    """The same encoder after masked-language-model pretraining on the user's text."""
    return NetworkRung(
        "encoder-pretrained",
        "the same encoder, which first learned to fill gaps in your own text",
        7,
        TransformerNetworks("encoder", pretrained=True),
        Training(epochs=10, batch_size=32, learning_rate=1e-3, weight_decay=0.01),
    )


def decoder() -> NetworkRung:
    """A small GPT that learned to continue the user's text, then to label it."""
    return NetworkRung(
        "decoder",
        "a small GPT, which first learned to continue your own text",
        8,
        TransformerNetworks("decoder", pretrained=True),
        Training(epochs=10, batch_size=32, learning_rate=3e-4, weight_decay=0.01),
    )
