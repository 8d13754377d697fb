"""Training one classifier network on labelled texts: how long, when to stop, which weights to keep."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rung.data.label_batches import HeldOut, LabelBatches
from rung.data.text_encoder import EncodedTexts
from rung.objectives.classification import Classification
from rung.progress import Progress
from rung.tasks.tuning.recipe import ItemsSection
from rung.training import loop
from rung.training.contracts import Batches, LoopResult, LoopSettings, Objective, Optimizer, Precision, Validation
from rung.training.distributed import alone
from rung.training.gradients import BatchGradient
from rung.training.guards import GuardSettings
from rung.training.machine import has_bf16_instructions
from rung.training.meter import SilentDisplay, StepReport
from rung.training.optimizers import OptimizerName, build_optimizer, rate_like_adamw
from rung.training.precision import tune_allocator
from rung.training.schedule import Schedule
from rung.training.validation import mean_loss

_RATES: Mapping[str, float] = {"full": 5e-5, "lora": 5e-4, "frozen": 0.0}
_RATES_SUIT = 768
_LEAST_BATCHES_PER_EPOCH = 20
_SMALLEST_BATCH = 8
_FEWEST_VALIDATIONS, _MOST_VALIDATIONS = 8, 20
_SCORED_AT_ONCE = 128
TIMED_STEPS, _COMPARED_STEPS = 6, 2
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_CLEARLY = 0.8


@dataclass(frozen=True)
class Training:
    """How to train a classifier network, whatever the number of labelled texts.

    `epochs` passes, but at least `least_steps` steps: on few labels a pass is only a handful of steps; or exactly
    `steps`. `patience`: validations without a new best before training stops; None: to the end. `learning_rate` is
    AdamW's, whatever the `optimizer`: others get the rate that is as usual for them
    (`rung.training.optimizers.rate_like_adamw`).
    """

    epochs: float
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    least_steps: int = 300
    warmup_share: float = 0.05
    decay_share: float = 0.5
    patience: int | None = 5
    precision: Precision = "fp32"
    optimizer: OptimizerName = "adamw"
    steps: int | None = None

    def batch_of(self, items: int) -> int:
        """Texts in a batch: fewer where there are few texts, so that an epoch still has some steps."""
        return min(items, self.batch_size, max(_SMALLEST_BATCH, items // _LEAST_BATCHES_PER_EPOCH))

    def settings(self, items: int, *, seed: int, validated: bool) -> LoopSettings:
        """What the loop is told for training on `items` texts."""
        batch = self.batch_of(items)
        steps = max(1, round(self.epochs * items / batch), self.least_steps) if self.steps is None else self.steps
        validations = min(max(round(steps * batch / items), _FEWEST_VALIDATIONS), _MOST_VALIDATIONS)
        return LoopSettings(
            schedule=Schedule.warmup_flat_decay(
                steps, warmup=round(steps * self.warmup_share), decay_fraction=self.decay_share, final=0.0
            ),
            batch_size=batch,
            micro_batch_size=batch,
            seed=seed,
            precision=self.precision,
            validate_every=-(-steps // validations) if validated else None,
            patience=self.patience if validated else None,
            keep_last=1,
            # A loss near zero is the aim here, and the rare hard text is worth the most.
            guard=GuardSettings(spike_threshold=None),
        )


def training_of(section: ItemsSection, learning_rate: float) -> Training:
    """How a recipe of tuning wants items to be trained on."""
    return Training(
        epochs=section.epochs or 0.0,
        batch_size=section.batch_size,
        learning_rate=learning_rate,
        weight_decay=section.weight_decay,
        least_steps=1,
        warmup_share=section.warmup_share,
        decay_share=section.decay_share,
        patience=None,
        precision=section.precision or "fp32",
        steps=section.steps,
    )


@dataclass(frozen=True)
class LabelledTexts:
    """Encoded texts and the class number of each."""

    texts: EncodedTexts
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


def device() -> torch.device:
    """Where networks are trained: on a GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tuning_rate(kind: str, hidden_size: int) -> float:
    """AdamW's rate for a pretrained network that is tuned whole ("full") or by "lora".

    Of BERT-base the largest of its paper (Devlin et al. 2019, appendix A.3), for adapters ten times as much (Hu et al.
    2021, table D.9); for other widths in inverse proportion (Yang et al. 2022, arXiv 2203.03466, table 3). So MiniLM
    gets 1e-4: on 400 questions of TREC and 400 sentences of SST-2, four readings, that is 2 points better than 5e-5 on
    held-out training items; 2e-4 gains 1.4 points more on TREC and nothing on SST-2.
    """
    return float(f"{_RATES[kind] * _RATES_SUIT / hidden_size:.3g}")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw from `seed` for the time being."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads for the time being, in memory that it keeps from step to step."""
    tune_allocator()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_classifier(
    net: nn.Module,
    train: LabelledTexts,
    valid: LabelledTexts,
    training: Training,
    *,
    pad_token_id: int,
    seed: int,
    near: Path,
    label: str,
    progress: Progress,
) -> LoopResult:
    """Train `net` in place and leave it with the weights that did best on `valid` (without any: the last ones).

    Temporary files are kept beside `near`. Raises KeyboardInterrupt when someone interrupts: nothing is left then.
    """
    course = course_of(net, train, valid, training, pad_token_id=pad_token_id, seed=seed)
    return train_to_best(
        net,
        Classification(),
        course.batches,
        optimizer_of(net, training),
        course.settings,
        validate=course.validate,
        near=near,
        label=label,
        progress=progress,
    )


@dataclass(frozen=True)
class Course:
    """What the loop needs to train one classifier, beside net and optimiser."""

    batches: Batches
    settings: LoopSettings
    validate: Callable[[], Validation] | None


def course_of(
    net: nn.Module, train: LabelledTexts, valid: LabelledTexts, training: Training, *, pad_token_id: int, seed: int
) -> Course:
    """Batches of texts of similar length, and validation: the best has the fewest errors, of equals the smallest loss.

    Without any `valid` texts there is no validation.
    """
    world = alone(device())
    settings = training.settings(len(train), seed=seed, validated=len(valid) > 0)
    held_out = HeldOut(valid.texts, valid.labels, pad_token_id=pad_token_id)

    def validate() -> Validation:
        found = mean_loss(
            net,
            Classification(),
            held_out,
            samples=len(valid),
            batch_size=_SCORED_AT_ONCE,
            world=world,
            precision=training.precision,
        )
        loss, accuracy = found["loss"], found["correct"]
        tie_break = loss / (1 + loss) / len(valid)  # less than one error, whatever the loss
        return Validation(1 - accuracy + tie_break, {"accuracy": accuracy, "loss": loss})

    batches = LabelBatches(
        train.texts, train.labels, pad_token_id=pad_token_id, batch_size=settings.batch_size, seed=seed
    )
    return Course(batches, settings, validate if len(valid) else None)


def optimizer_of(net: nn.Module, training: Training, *, rate_of: Callable[[str], float] | None = None) -> Optimizer:
    """The optimiser that `training` names. Rate x decay is AdamW's for all; to Adam it is an L2 penalty.

    `rate_of` scales the rate of each parameter by its name.
    """
    rate = rate_like_adamw(training.optimizer, training.learning_rate)
    return build_optimizer(
        net,
        name=training.optimizer,
        learning_rate=rate,
        weight_decay=training.weight_decay * training.learning_rate / rate,
        betas=(0.9, 0.999),
        rate_of=rate_of,
    )


def train_to_best(
    net: nn.Module,
    objective: Objective,
    batches: Batches,
    optimizer: Optimizer,
    settings: LoopSettings,
    *,
    validate: Callable[[], Validation] | None,
    near: Path,
    label: str,
    progress: Progress,
) -> LoopResult:
    """Run the loop, its log in a temporary folder beside `near`, and leave `net` with the best weights.

    Raises KeyboardInterrupt when someone interrupts: nothing is left then.
    """
    near.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".writing-{near.name}-", dir=near.parent) as scratch,
        progress.task(label, settings.schedule.steps, "steps") as advance,
    ):
        result = loop.train(
            net,
            objective,
            batches,
            optimizer,
            settings,
            run_folder=Path(scratch),
            save_model=None,  # a fit takes seconds and is not resumed
            validate=validate,
            world=alone(next(net.parameters()).device),
            display=_Steps(advance),
        )
        if result.ended == "interrupted":
            raise KeyboardInterrupt
    return result


class _Steps(SilentDisplay):
    """Advances a progress bar by the steps of the loop."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._advance = advance

    def update(self, report: StepReport) -> None:  # noqa: ARG002 - every report is one step
        self._advance(1)


def seconds_per_step(
    net: nn.Module,
    objective: Objective,
    batches: Batches,
    settings: LoopSettings,
    training: Training,
    *,
    samples: int,
    places: int,
) -> float:
    """Mean seconds of real steps at `places` places of a pass: batches are of texts of similar length, so steps differ.

    Each is taken twice and the quicker one counts, so that a pause of the machine does not.
    """
    optimizer = optimizer_of(net, training)
    gradient = BatchGradient(
        net=net,
        objective=objective,
        batches=batches,
        optimizer=optimizer,
        settings=settings,
        world=alone(next(net.parameters()).device),
    )
    net.train()
    steps = max(1, samples // settings.batch_size)
    times = []
    for place in range(places):
        best = math.inf
        for _ in range(2):
            began = time.perf_counter()
            gradient.compute(place * steps // places * settings.batch_size, lambda: 0)
            optimizer.step(0.0)
            best = min(best, time.perf_counter() - began)
        times.append(best)
    return mean(times)


def faster_precision(seconds: Callable[[Precision, int], float]) -> tuple[Precision, float]:
    """The precision that is faster, and its seconds a step by `seconds`, a timing at so many places.

    bfloat16 is tried only where the processor has it, and must win clearly: it also computes less exactly. A few places
    show that; the winner alone is timed at all of them.
    """
    best: Precision = "fp32"
    if device().type == "cuda" or has_bf16_instructions():
        few = {precision: seconds(precision, _COMPARED_STEPS) for precision in _PRECISIONS}
        best = "bf16" if few["bf16"] < _CLEARLY * few["fp32"] else "fp32"
    return best, seconds(best, TIMED_STEPS)


def timed_step(
    net: nn.Module,
    objective: Objective,
    batches: Batches,
    training: Training,
    *,
    asked: Precision | None,
    samples: int,
    seed: int,
) -> tuple[Precision, float]:
    """The precision that is `asked` for, else the faster one, and its seconds a step."""

    def timed(precision: Precision, places: int) -> float:
        wanted = replace(training, precision=precision, steps=1)
        settings = wanted.settings(samples, seed=seed, validated=False)
        return seconds_per_step(net, objective, batches, settings, wanted, samples=samples, places=places)

    return faster_precision(timed) if asked is None else (asked, timed(asked, TIMED_STEPS))
