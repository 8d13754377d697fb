"""One language-model run from its resolved recipe to a finished folder: the same path for new, resumed and extended."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rung.evaluation.bits_per_byte import bits_per_byte
from rung.evaluation.compressors import compressor_floors
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.nets.language_models import (
    Dropout,
    Net,
    draw_language_model,
    load_language_model,
    save_language_model,
)
from rung.recipe import Recipe
from rung.records import Record
from rung.tasks.model_card import model_card
from rung.tasks.ranked_training import RankedTraining, Session
from rung.tasks.run import Run, TrainSummary
from rung.tasks.text_preparation import PreparedText, matrix_rows
from rung.tasks.text_reading import TextReading
from rung.training import loop
from rung.training.checkpoint import Checkpoint
from rung.training.contracts import LoopResult, LoopSettings, Optimizer
from rung.training.meter import Figures
from rung.training.optimizers import build_optimizer
from rung.training.precision import matmul_peak
from rung.training.schedule import Schedule
from rung.training.shapes import candidate_configs, choose_context

_FINISH_SHARE = 0.03  # of the minutes: the last evaluation, the sample and the files
_FINISH_SECONDS = 1.5
_VALIDATION_SHARE = 0.03  # of the training time, for all validations together
_LEAST_VALIDATION_TOKENS = 8_192
_EVALUATION_SHARE = 0.03  # of the training time, for the last evaluation
_LEAST_EVALUATION_BYTES = 200_000
FORWARD_SPEEDUP = 3.0
"""Of a forward pass over a training step."""
SAMPLE_TOKENS = 120


@dataclass(frozen=True)
class Further:
    """What a kind of run measures beyond the usual: entries of `results.json`, and a section of the model card."""

    results: Mapping[str, Any] = field(default_factory=dict)
    section: str = ""


def training_deadline(minutes: float | None, began: float) -> float | None:
    """The reading of `time.monotonic()` by which training itself must be done, so that the command ends in time."""
    if minutes is None:
        return None
    return began + 60 * minutes * (1 - _FINISH_SHARE) - _FINISH_SECONDS


class TextTraining(RankedTraining[Recipe, TrainSummary]):
    """Trains a language model by the recipe of its run."""

    def __init__(self, run: Run, text: PreparedText, session: Session) -> None:
        """Take a run whose recipe has no gaps, and its text."""
        super().__init__(run, run.recipe, session)
        self.text = text
        self.dtype = torch.bfloat16 if self.recipe.training.precision == "bf16" else torch.float32
        (self.config,) = candidate_configs(
            self.recipe.net,
            vocab_size=matrix_rows(self.recipe, text.tokenizer),
            context=choose_context(self.recipe.net, tokens=0.0, bytes_per_token=1.0),  # no gap: the recipe's own
            eos_token_id=text.tokenizer.eos_token_id,
        )

    def _network(self, checkpoint: Path | None) -> Net:
        """The network to train (`checkpoint` None: drawn from the seed), on this rank's device."""
        dropout = Dropout(self.recipe.net.dropout or 0.0, self.recipe.net.dropout_kind)
        if checkpoint is None:
            net = draw_language_model(self.config, seed=self.recipe.seed, dropout=dropout)
        else:
            net = load_language_model(checkpoint, dropout=dropout)
        net.compute_dtype = self.dtype
        return net.to(self.session.world.device)

    def _loop(self, deadline: float | None, checkpoint: Checkpoint | None) -> LoopResult:
        training, world, text, window = self.recipe.training, self.session.world, self.text, self.config.window
        net = self._network(checkpoint.folder if checkpoint else None)
        reading = self._reading(net)

        def save_model(folder: Path) -> None:
            save_language_model(net, folder)
            text.tokenizer.save(folder, model_max_length=self.config.max_length)

        return loop.train(
            net,
            reading.objective,
            reading.batches,
            self._optimizer(net),
            self._settings(),
            run_folder=self.run.folder,
            save_model=save_model,
            header={key: self.run.header[key] for key in ("rung_version", "task", "data")} | {"kind": "checkpoint"},
            validate=reading.validate,
            world=world,
            figures=Figures(
                flops_per_target=self.config.flops_per_token(window),
                peak_flops=matmul_peak(
                    self.config, (training.micro_batch_size or 1) * window, self.dtype, world.device
                ),
                bytes_per_target=text.train.bytes_per_token,
            ),
            display=self.session.display,
            deadline=deadline,
            resume=checkpoint,
            on_revision=self._on_revision,
        )

    def _reading(self, net: Net) -> TextReading:
        """What `net` reads, and what it is validated on."""
        tokens = self._validation_tokens()
        return TextReading(net, self.recipe, self.text, self.session.world, validation_tokens=tokens)

    def _optimizer(self, net: Net) -> Optimizer:
        training = self.recipe.training
        return build_optimizer(
            net,
            name=training.optimizer or "muon",
            learning_rate=training.learning_rate or 0.0,
            weight_decay=training.weight_decay or 0.0,
        )

    def _settings(self) -> LoopSettings:
        training = self.recipe.training
        return LoopSettings(
            schedule=Schedule.from_json(training.schedule or {}),
            batch_size=training.batch_size or 1,
            micro_batch_size=training.micro_batch_size or 1,
            seed=self.recipe.seed,
            gradient_clip=training.gradient_clip,
            precision="fp32",  # no autocast: a language model computes in its own `compute_dtype`
            compile=bool(training.compile),
            validate_every=training.validate_every,
            checkpoint_every=training.checkpoint_every,
            patience=training.patience,
            tensorboard=training.tensorboard,
            vital_signs_every=training.vital_signs_every,
        )

    def _validation_tokens(self) -> int:
        """How many tokens each validation may take, so that all of them cost a small share of the run."""
        training = self.recipe.training
        steps = training.steps or 1
        times = max(1, steps // (training.validate_every or steps))
        trained = steps * (training.batch_size or 1) * self.config.window
        affordable = trained * _VALIDATION_SHARE * FORWARD_SPEEDUP / times
        return math.ceil(max(affordable, _LEAST_VALIDATION_TOKENS))

    def _evaluation_bytes(self, trained_tokens: int) -> int:
        """How much held-out text the last evaluation may read; half-overlapping windows read every token twice."""
        affordable = trained_tokens * _EVALUATION_SHARE * FORWARD_SPEEDUP / 2 * self.text.valid.bytes_per_token
        return round(max(affordable, _LEAST_EVALUATION_BYTES))

    def _publish(self, result: LoopResult) -> TrainSummary:
        """Measure the best checkpoint on held-out text, let it write a sample, and make the run folder that model."""
        checkpoint = result.best_checkpoint or result.checkpoint
        net = self._network(checkpoint).eval()
        most = self._evaluation_bytes(result.targets)
        record, scores = bits_per_byte(net, self.text.valid, max_bytes=most, progress=self.session.progress)
        floors = compressor_floors(self.text.corpus.texts("valid", most), data_sha256=record.data_sha256)
        options = SamplingOptions(temperature=0.8, top_p=0.95, max_tokens=SAMPLE_TOKENS, seed=self.recipe.seed)
        (sample,) = Engine(net, self.text.tokenizer).generate("", options)
        further = self._further(net, checkpoint)
        self._store_schedule(result.schedule)
        summary = self._summary(result, record=record, floors=tuple(floors), sample=sample.text)
        card = model_card(self.run, summary, section=further.section)
        records, by_item = [record, *floors], {record.name: scores}
        self.run.publish(checkpoint, card=card, records=records, scores=by_item, further=further.results)
        return summary

    def _further(self, net: Net, checkpoint: Path) -> Further:  # noqa: ARG002 - for kinds of runs that measure more
        return Further()

    def _summary(
        self, result: LoopResult, *, record: Record | None = None, floors: tuple[Record, ...] = (), sample: str = ""
    ) -> TrainSummary:
        return TrainSummary(
            run=self.run.folder,
            ended=result.ended,
            steps=result.step,
            tokens=result.targets,
            epochs=result.targets / self.text.train.num_tokens,
            parameters=self.config.num_parameters,
            seconds=time.monotonic() - self.session.began,
            tokens_per_second=result.targets / result.seconds if result.seconds else 0.0,
            bits_per_byte=record,
            floors=floors,
            sample=sample,
            plan=self.run.header["plan"],
            skipped=result.skipped,
        )
