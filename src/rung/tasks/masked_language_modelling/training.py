"""Raw text in, a masked language model out: `train`, `resume`, `plan`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rung.data.masked_batches import HeldOutMasks, Masking
from rung.evaluation.bits_per_byte import sampled_documents
from rung.evaluation.masked_tokens import masked_token_records, unigram_frequencies
from rung.evaluation.pseudo_likelihood import pseudo_bits_per_byte
from rung.nets.masked_language_model import (
    MaskedLanguageModel,
    load_masked_language_model,
    save_masked_language_model,
)
from rung.objectives.masked_token import MaskedToken
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.tasks.masked_language_modelling.plan import (
    MaskedPlan,
    draw_network,
    encoder_config,
    flops_per_token,
    make_plan,
    masked_batches,
    num_parameters,
)
from rung.tasks.masked_language_modelling.preparation import MaskedText, prepare, prepare_again
from rung.tasks.masked_language_modelling.recipe import MaskedRecipe, as_recipe
from rung.tasks.masked_language_modelling.summary import MaskedSummary, card
from rung.tasks.ranked_training import RankedTraining, Session, open_session
from rung.tasks.run import Run, default_folder, require_empty
from rung.training import loop
from rung.training.checkpoint import Checkpoint, latest_good
from rung.training.contracts import LoopResult, LoopSettings, Validation
from rung.training.machine import this_machine
from rung.training.meter import SILENT_DISPLAY, Display, Figures
from rung.training.optimizers import build_optimizer
from rung.training.schedule import Schedule
from rung.training.validation import mean_loss

TASK = "masked-language-model"
_FINISH_SHARE = 0.06  # of the minutes: the last evaluation and the files
_FINISH_SECONDS = 2.0
_VALIDATION_SHARE = 0.03  # of the training time, for all validations together
_LEAST_VALIDATION_TOKENS = 8_192
_EVALUATION_SHARE = 0.02  # of the training time, for each of the two last measurements
_LEAST_ACCURACY_BYTES, _LEAST_LIKELIHOOD_BYTES = 200_000, 8_000
_FORWARD_SPEEDUP = 3.0  # of a forward pass over a training step

Texts = Sequence[str | Path]


def train(
    texts: Texts = (),
    *,
    minutes: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    recipe: MaskedRecipe | Mapping[str, Any] | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    valid: Texts = (),
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
    started: float | None = None,
) -> MaskedSummary:
    """Train WordPiece and a BERT on `texts`, and leave a run folder that transformers opens as a `BertForMaskedLM`.

    `minutes` is the wall time of it all, counted from `started` (a reading of `time.monotonic()`; default: now).
    `steps` instead makes a plan and a run that read no clock. Single arguments win over `overrides` (dotted keys),
    those over `recipe`: an object, a nested mapping, a TOML or JSON file, or a run folder whose recipe is used again.

        summary = train(["my_texts/"], minutes=30)
        rung.load(summary.run).fill("Paris is the [MASK] of France")

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError or RunFolderError, each saying what to do.
    """
    began = time.monotonic() if started is None else started
    wanted = as_recipe(
        texts,
        valid=valid,
        recipe=recipe,
        overrides=overrides,
        minutes=minutes,
        steps=steps,
        seed=seed,
        threads=threads,
    )
    out = out or default_folder(wanted.text.files)
    deadline = _deadline(wanted, began)
    with open_session(progress, display, began) as session:
        if session.world.is_main:
            require_empty(out)
            text = prepare(wanted, session.progress)
            made = _make_plan(wanted, text, deadline, session)
            run = Run.create(out, recipe=made.recipe, plan=made.to_json(), data=text.describe(), parent=None, task=TASK)
            text.encoder.save(out, model_max_length=made.config.max_position_embeddings)
            run.write("planned")
        session.world.wait_for_all()
        return _MaskedTraining(Run.open(out), session).train(deadline=deadline)


def plan(
    texts: Texts = (),
    *,
    minutes: float | None = None,
    steps: int | None = None,
    recipe: MaskedRecipe | Mapping[str, Any] | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    valid: Texts = (),
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    started: float | None = None,
) -> MaskedPlan:
    """Do all that `train` does before training, and return what it would do. Arguments and errors as in `train`."""
    began = time.monotonic() if started is None else started
    wanted = as_recipe(
        texts,
        valid=valid,
        recipe=recipe,
        overrides=overrides,
        minutes=minutes,
        steps=steps,
        seed=seed,
        threads=threads,
    )
    with open_session(progress, SILENT_DISPLAY, began) as session:
        return _make_plan(wanted, prepare(wanted, progress), _deadline(wanted, began), session)


def resume(
    run: str | Path,
    *,
    threads: int | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
) -> MaskedSummary:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its text has changed since.
    """
    opened = Run.open_unfinished(Path(run), threads=threads, instead="train anew, for longer")
    with open_session(progress, display, time.monotonic()) as session:
        checkpoint = latest_good(opened.folder, session.progress.say)
        return _MaskedTraining(opened, session).train(deadline=None, checkpoint=checkpoint)


def _deadline(wanted: MaskedRecipe, began: float) -> float | None:
    """The reading of `time.monotonic()` by which training itself must be done, so that the command ends in time."""
    minutes = wanted.training.minutes
    return None if minutes is None else began + 60 * minutes * (1 - _FINISH_SHARE) - _FINISH_SECONDS


def _make_plan(wanted: MaskedRecipe, text: MaskedText, deadline: float | None, session: Session) -> MaskedPlan:
    world = session.world
    machine = this_machine(threads=wanted.training.threads, ranks=world.size, ranks_here=world.size_here)
    torch.set_num_threads(machine.threads)
    seconds = None if deadline is None else max(1.0, deadline - time.monotonic())
    made = make_plan(wanted, text, world, threads=machine.threads, bf16=machine.bf16, seconds=seconds)
    for line in made.lines():
        session.progress.say(line)
    return made


class _MaskedTraining(RankedTraining[MaskedRecipe, MaskedSummary]):
    """Trains a BERT by the recipe of its run."""

    def __init__(self, run: Run, session: Session) -> None:
        """Take a run whose recipe has no gaps."""
        super().__init__(run, MaskedRecipe.parse(run.header["recipe"], where=str(run.folder / "rung.json")), session)
        self.text = prepare_again(run, self.recipe, session.progress)
        self.config = encoder_config(self.recipe, self.text)
        self.precision = self.recipe.training.precision or "fp32"

    def _network(self, checkpoint: Path | None) -> MaskedLanguageModel:
        """The network to train (None: drawn from the seed), on this rank's device."""
        if checkpoint is None:
            net = draw_network(self.config, seed=self.recipe.seed)
        else:
            net = load_masked_language_model(checkpoint)
        return net.to(self.session.world.device)

    def _loop(self, deadline: float | None, checkpoint: Checkpoint | None) -> LoopResult:
        training, world, text = self.recipe.training, self.session.world, self.text
        net = self._network(checkpoint.folder if checkpoint else None)
        objective, held_out = MaskedToken(), self._held_out()

        def save_model(folder: Path) -> None:
            save_masked_language_model(net, folder)
            text.encoder.save(folder, model_max_length=self.config.max_position_embeddings)

        def validate() -> Validation:
            size = training.micro_batch_size or 1
            samples = len(held_out)
            found = mean_loss(
                net,
                objective,
                held_out,
                samples=samples,
                batch_size=size,
                world=world,
                precision=self.precision,
            )
            return Validation(found["loss"], {"bits_per_hidden_token": found["loss"] / math.log(2)})

        share = self.recipe.masking.share
        return loop.train(
            net,
            objective,
            masked_batches(self.recipe, text, self.config, training.batch_size or 1),
            build_optimizer(
                net,
                name=training.optimizer,
                learning_rate=training.learning_rate or 0.0,
                weight_decay=training.weight_decay or 0.0,
                betas=(0.9, 0.98),
            ),
            self._settings(),
            run_folder=self.run.folder,
            save_model=save_model,
            header={key: self.run.header[key] for key in ("rung_version", "task", "data")} | {"kind": "checkpoint"},
            validate=validate,
            world=world,
            figures=Figures(flops_per_target=flops_per_token(self.config, share) / share),
            display=self.session.display,
            deadline=deadline,
            resume=checkpoint,
            on_revision=self._on_revision,
        )

    def _settings(self) -> LoopSettings:
        training = self.recipe.training
        return LoopSettings(
            schedule=Schedule.from_json(training.schedule or {}),
            batch_size=training.batch_size or 1,
            micro_batch_size=training.micro_batch_size or 1,
            seed=self.recipe.seed,
            gradient_clip=training.gradient_clip,
            precision=self.precision,
            validate_every=training.validate_every,
            checkpoint_every=training.checkpoint_every,
            tensorboard=training.tensorboard,
            vital_signs_every=training.vital_signs_every,
        )

    def _held_out(self) -> HeldOutMasks:
        """Held-out windows, spread evenly, as many as all validations together may take; hidden as in training."""
        training, masking = self.recipe.training, self.recipe.masking
        windows = self.text.windows(self.text.valid, self.config.max_position_embeddings)
        steps = training.steps or 1
        times = max(1, steps // (training.validate_every or steps))
        trained = steps * (training.batch_size or 1) * self.config.max_position_embeddings
        tokens = max(trained * _VALIDATION_SHARE * _FORWARD_SPEEDUP / times, _LEAST_VALIDATION_TOKENS)
        count = min(len(windows), math.ceil(tokens / windows.lengths.mean()))
        rows = np.arange(count) * len(windows) // count
        hiding = Masking(self.text.encoder, seed=0, share=masking.share, whole_words=masking.whole_words)
        return HeldOutMasks(windows, hiding, rows)

    def _publish(self, result: LoopResult) -> MaskedSummary:
        """Measure the best checkpoint on held-out text, and make the run folder that model."""
        checkpoint = result.best_checkpoint or result.checkpoint
        records, scores = self._measure(self._network(checkpoint), self._tokens(result))
        self._store_schedule(result.schedule)
        summary = self._summary(result, records)
        self.run.publish(checkpoint, card=card(self.run, self.recipe, summary), records=records, scores=scores)
        return summary

    def _measure(self, net: MaskedLanguageModel, trained_tokens: float) -> tuple[list[Record], dict[str, ItemScores]]:
        """Guesses of hidden tokens beside a unigram model's, and the pseudo-log-likelihood of a smaller sample."""
        text, progress, masking = self.text, self.session.progress, self.recipe.masking
        affordable = trained_tokens * _EVALUATION_SHARE * _FORWARD_SPEEDUP * text.valid.bytes_per_token
        document_bytes = text.valid.document_bytes
        records, scores = masked_token_records(
            net,
            text.encoder,
            text.valid,
            unigram_frequencies(text.train, text.encoder),
            documents=sampled_documents(document_bytes, round(max(affordable, _LEAST_ACCURACY_BYTES))),
            whole_words=masking.whole_words,
            share=masking.share,
            progress=progress,
        )
        # Each token costs a window of its own.
        affordable /= self.config.max_position_embeddings
        record, by_document = pseudo_bits_per_byte(
            net,
            text.encoder,
            text.valid,
            documents=sampled_documents(document_bytes, round(max(affordable, _LEAST_LIKELIHOOD_BYTES))),
            progress=progress,
        )
        return [*records, record], {**scores, record.name: by_document}

    def _tokens(self, result: LoopResult) -> float:
        """About how many tokens of windows were read: what was hidden of them is counted, and is this share."""
        return result.targets / self.recipe.masking.share

    def _summary(self, result: LoopResult, records: Sequence[Record] = ()) -> MaskedSummary:
        tokens = self._tokens(result)
        return MaskedSummary(
            run=self.run.folder,
            ended=result.ended,
            steps=result.step,
            tokens=round(tokens),
            epochs=tokens / self.text.train_tokens,
            parameters=num_parameters(self.config),
            seconds=time.monotonic() - self.session.began,
            tokens_per_second=tokens / result.seconds if result.seconds else 0.0,
            records=tuple(records),
            plan=self.run.header["plan"],
            skipped=result.skipped,
        )
