"""An encoder's weights and tagged sentences in, a tagger out: `tune`, `plan`, `resume`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from rung.data.tag_batches import TagBatches, WordTokens, word_tokens
from rung.data.tagged_sentences import TaggedSentences, TaggedSplit, read_tagged, split_tagged
from rung.data.text_encoder import TextEncoder
from rung.errors import PlanError, UsageError
from rung.evaluation.entities import has_spans
from rung.nets.tagger import new_tagger
from rung.objectives.token_classification import TokenClassification
from rung.progress import SILENT, Progress
from rung.tasks.bases import base_record, resolve_base
from rung.tasks.classification.network_training import (
    Training,
    device,
    faster_precision,
    optimizer_of,
    seconds_per_step,
    seeded,
    threads_of,
)
from rung.tasks.run import Run, free_folder, require_empty
from rung.tasks.tagging.folder import save_tuned_tagger, take_up
from rung.tasks.tagging.recipe import TagRecipe
from rung.tasks.tagging.summary import TaggerTuned, card
from rung.tasks.tagging.tagger import Tagger, load, span_f1_of
from rung.tasks.tuning.frame import Job, Session, open_interrupted, require_unchanged, run_loop
from rung.tasks.tuning.method import TuningMethod, apply_method, gradual_unfreezing, rate_of
from rung.tasks.tuning.tune import TUNED_FOR
from rung.training.checkpoint import Checkpoint, latest_good
from rung.training.contracts import LoopResult, LoopSettings, Precision, Validation
from rung.training.machine import has_bf16_instructions, usable_cores
from rung.training.meter import SILENT_DISPLAY, Display

Files = Sequence[str | Path]
DEFAULT_EPOCHS = 5.0
_MOST_EPOCHS = 20.0
_MOST_TOKENS = 512
_VALIDATIONS = 5
_FORWARD_SHARE = 0.4  # of a training step, to tag as many sentences
_FILES_SECONDS = 3.0


@dataclass(frozen=True)
class TagPlan:
    """A recipe without gaps, and what it comes to: `trained` of the `parameters` move."""

    recipe: TagRecipe
    parameters: int
    trained: int
    sentences: int
    batch_size: int
    steps: int
    seconds: float | None

    def lines(self) -> list[str]:
        """The plan for people."""
        training = self.recipe.training
        taken = "" if self.seconds is None else f", about {self.seconds:,.0f} s"
        return [
            f"{self.trained:,} of {self.parameters:,} parameters are trained ({self.recipe.tuning.kind}).",
            f"{self.steps:,} steps of {self.batch_size} sentences "
            f"({self.steps * self.batch_size / self.sentences:.1f} times over {self.sentences:,}) in "
            f"{training.precision}, learning rate {self.recipe.learning_rate:g}{taken}.",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the run folder and `--json`."""
        return {
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "sentences": self.sentences,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "seconds": self.seconds,
            "recipe": self.recipe.to_json(),
        }


def tune(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    source: str | None = None,
    target: str | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    seed: int | None = None,
    threads: int | None = None,
    valid: Files = (),
    test: Files = (),
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
    started: float | None = None,
) -> TaggerTuned:
    """Tune the encoder `base` to the tags in `data`, and leave a run folder that transformers opens too.

    `data` are CoNLL files, or tables whose columns `source` and `target` hold lists of words and of their tags; a tenth
    each is split off to validate and to test, unless files are given. `method` (default: full) says which weights move.
    `minutes` is the wall time of it all, counted from `started`; `epochs` (default: 5) or `steps` read no clock.

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError or RunFolderError, each saying what to do.
    """
    session = Session(progress, display, time.monotonic() if started is None else started)
    budget = {"minutes": minutes, "epochs": epochs, "steps": steps, "threads": threads}
    sentences = {"files": data, "valid": valid, "test": test, "words": source, "tags": target}
    recipe = _recipe(base, method, sentences, budget, seed=seed, overrides=overrides)
    out = out or free_folder(f"{Path(recipe.sentences.files[0]).name.split('.')[0]}-{Path(base).name.split('.')[0]}")
    require_empty(out)
    tuning = _Tuning.of(recipe, session)
    with threads_of(recipe.training.threads or usable_cores()):
        deadline = session.deadline(recipe.training.minutes)
        made = tuning.plan(None if deadline is None else deadline - time.monotonic())
        for line in made.lines():
            progress.say(line)
        parent = base_record(tuning.folder)
        described = tuning.describe()
        run = Run.create(out, recipe=made.recipe, plan=made.to_json(), data=described, parent=parent, task="tagging")
        run.header[TUNED_FOR] = "tag"
        run.write("planned")
        return replace(tuning, recipe=made.recipe).go(run, deadline=deadline)


def plan(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    source: str | None = None,
    target: str | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
    valid: Files = (),
    test: Files = (),
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
    started: float | None = None,
) -> TagPlan:
    """Do all that `tune` does before tuning, and return what it would do. Arguments and errors as in `tune`."""
    session = Session(progress, SILENT_DISPLAY, time.monotonic() if started is None else started)
    budget = {"minutes": minutes, "epochs": epochs, "steps": steps, "threads": threads}
    sentences = {"files": data, "valid": valid, "test": test, "words": source, "tags": target}
    recipe = _recipe(base, method, sentences, budget, seed=seed, overrides=overrides)
    deadline = session.deadline(recipe.training.minutes)
    with threads_of(recipe.training.threads or usable_cores()):
        return _Tuning.of(recipe, session).plan(None if deadline is None else deadline - time.monotonic())


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> TaggerTuned:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its base or sentences have changed since.
    """
    opened = open_interrupted(run, threads=threads)
    recipe = TagRecipe.parse(opened.header["recipe"], where=str(opened.folder / "rung.json"))
    tuning = _Tuning.of(recipe, Session(progress, display, time.monotonic()))
    sha256 = tuning.describe()["sha256"]
    require_unchanged(opened, base=recipe.base, data_sha256=sha256, files=recipe.sentences.files)
    checkpoint = latest_good(opened.folder, progress.say)
    with threads_of(recipe.training.threads or usable_cores()):
        return tuning.go(opened, deadline=None, checkpoint=checkpoint)


def _recipe(
    base: str | Path,
    method: TuningMethod | None,
    sentences: Mapping[str, Any],
    budget: Mapping[str, Any],
    *,
    seed: int | None,
    overrides: Mapping[str, Any] | None,
) -> TagRecipe:
    """One recipe of all that a caller asked for. UsageError when there are no sentences."""
    if not sentences["files"]:
        raise UsageError("there are no sentences to tune on", hint="give CoNLL files: rung tune minilm train.conll")
    lists = {name: tuple(map(str, sentences[name])) for name in ("files", "valid", "test")}
    given = {f"sentences.{name}": value for name, value in {**sentences, **lists}.items()}
    given |= {f"training.{name}": value for name, value in budget.items()} | {"seed": seed}
    origin = base_record(resolve_base(base))["origin"]
    recipe = TagRecipe(base=origin, method=(method or TuningMethod()).to_json()).with_overrides(overrides or {})
    recipe = recipe.with_overrides({key: value for key, value in given.items() if value not in (None, ())})
    training = recipe.training
    if training.minutes is None and training.epochs is None and training.steps is None:
        recipe = recipe.with_overrides({"training.epochs": DEFAULT_EPOCHS})
    return recipe


def _read(recipe: TagRecipe, progress: Progress) -> TaggedSplit:
    wanted = recipe.sentences

    def read(files: Sequence[str]) -> TaggedSentences | None:
        return read_tagged(files, words=wanted.words, tags=wanted.tags, progress=progress) if files else None

    sentences = read(wanted.files)
    assert sentences is not None  # noqa: S101 - `_recipe` has asked for files
    return split_tagged(sentences, valid=read(wanted.valid), test=read(wanted.test), seed=recipe.seed)


@dataclass(frozen=True)
class _Tuning:
    """A recipe, its base and its sentences: planned, tuned and published."""

    recipe: TagRecipe
    session: Session
    folder: Path
    encoder: TextEncoder
    split: TaggedSplit
    tags: tuple[str, ...]
    train: WordTokens

    @classmethod
    def of(cls, recipe: TagRecipe, session: Session) -> _Tuning:
        """Open the base, read the sentences. Tags that occur in test sentences only could never be learned."""
        folder = resolve_base(recipe.base)
        encoder = TextEncoder.load(folder)
        net = new_tagger(folder, 1)  # before any text is read: a base that cannot tag is told at once
        split = _read(recipe, session.progress)
        for remark in split.remarks:
            session.progress.say(remark)
        longest = min(recipe.training.max_length or _MOST_TOKENS, net.config.max_length)
        train = word_tokens(split.train.words, encoder, max_length=longest)
        if train.cut:
            session.progress.say(f"{train.cut:,} training sentences have more than {longest} tokens: read in pieces")
        return cls(recipe, session, folder, encoder, split, split.train.tag_names, train)

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        parts = {"train": self.split.train, "valid": self.split.valid, "test": self.split.test}
        return {
            "sha256": "+".join(part.sha256[:20] for part in parts.values()),
            "remarks": list(self.split.remarks),
            "tags": list(self.tags),
            **{name: len(part) for name, part in parts.items()},
        }

    def plan(self, seconds: float | None) -> TagPlan:
        """Fill the gaps of the recipe, with `seconds` by timing a few steps. PlanError when not one step fits."""
        recipe = self.recipe.with_overrides(
            {
                "training.threads": self.recipe.training.threads or usable_cores(),
                "training.learning_rate": self.recipe.learning_rate,
            }
        )
        net = self._net(recipe)
        count = len(self.train.pieces)
        batch = _training(recipe, steps=1, precision="fp32").batch_of(count)
        steps = recipe.training.steps or math.ceil((recipe.training.epochs or 0.0) * count / batch)
        taken: float | None = None
        precision: Precision = "bf16" if has_bf16_instructions() or device().type == "cuda" else "fp32"
        if seconds is not None:
            precision, step = self._timed(recipe, net)
            held_out = len(self.split.valid) * (_VALIDATIONS + 1) + len(self.split.test)
            left = seconds - _FILES_SECONDS - _FORWARD_SHARE * step * held_out / batch
            steps = min(int(left / step), math.ceil(_MOST_EPOCHS * count / batch))
            taken = steps * step
            if steps < 1:
                raise PlanError(
                    f"no step of training fits into {max(0.0, seconds):.0f} s: one takes {step:.2f} s",
                    hint="give more --minutes",
                )
        changes = {"steps": steps, "precision": recipe.training.precision or precision, "epochs": None, "minutes": None}
        recipe = recipe.with_overrides({f"training.{name}": value for name, value in changes.items()})
        parameters = list(net.parameters())
        trained = sum(one.numel() for one in parameters if one.requires_grad)
        return TagPlan(recipe, sum(one.numel() for one in parameters), trained, count, batch, steps, taken)

    def _timed(self, recipe: TagRecipe, net: Any) -> tuple[Precision, float]:
        """The faster precision (or the one that is asked for), and its seconds a step."""
        asked = recipe.training.precision

        def timed(precision: Precision) -> float:
            training = _training(recipe, steps=1, precision=precision)
            batches = self._batches(recipe)
            settings = self._settings(recipe, training)
            return seconds_per_step(
                net, TokenClassification(), batches, settings, training, samples=len(self.train.pieces)
            )

        return faster_precision(timed) if asked is None else (asked, timed(asked))

    def _net(self, recipe: TagRecipe) -> Any:
        with seeded(recipe.seed):
            net = new_tagger(self.folder, len(self.tags))
        apply_method(net, recipe.tuning, seed=recipe.seed)
        return net.to(device())

    def _batches(self, recipe: TagRecipe) -> TagBatches:
        number = {tag: place for place, tag in enumerate(self.tags)}
        tags = np.array([number[tag] for sentence in self.split.train.tags for tag in sentence], dtype=np.int64)
        return TagBatches(
            self.train,
            self.train.labels(tags),
            pad_token_id=self.encoder.pad_token_id,
            batch_size=_training(recipe, steps=1, precision="fp32").batch_of(len(self.train.pieces)),
            seed=recipe.seed,
        )

    def _settings(self, recipe: TagRecipe, training: Training) -> LoopSettings:
        settings = training.settings(len(self.train.pieces), seed=recipe.seed, validated=True)
        every = math.ceil(settings.schedule.steps / (recipe.training.validations or _VALIDATIONS))
        return replace(settings, validate_every=every, checkpoint_every=every)

    def go(self, run: Run, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> TaggerTuned:
        """Tune from `checkpoint` or from the base until the schedule ends; measure, and make `run` the model."""
        recipe = self.recipe
        net = self._net(recipe)
        training = _training(recipe, steps=recipe.training.steps or 1, precision=recipe.training.precision or "fp32")
        settings = self._settings(recipe, training)
        longest = min(_MOST_TOKENS, net.config.max_length)

        def save(folder: Path) -> None:
            save_tuned_tagger(net, folder, self.tags, method=recipe.tuning, base=run.header["parent"])
            self.encoder.save(folder, model_max_length=longest)

        def validate() -> Validation:
            net.eval()
            found = Tagger(run.folder, net, self.tags, self.encoder).predict(self.split.valid.words)
            net.train()
            pairs = zip(chain.from_iterable(found), chain.from_iterable(self.split.valid.tags), strict=True)
            metrics = {"tag_accuracy": mean(one == other for one, other in pairs)}
            if has_spans(self.tags):
                metrics["entity_f1"] = span_f1_of(found, self.split.valid)
            return Validation(1 - metrics.get("entity_f1", metrics["tag_accuracy"]), metrics)

        thaw = None
        if recipe.tuning.gradual:
            per_epoch = max(1, round(len(self.train.pieces) / settings.batch_size))
            thaw = gradual_unfreezing(net, steps_per_epoch=per_epoch, epochs=settings.schedule.steps / per_epoch)
        job = Job(
            net=net,
            objective=TokenClassification(),
            batches=self._batches(recipe),
            optimizer=optimizer_of(net, training, rate_of=rate_of(net, recipe.tuning)),
            settings=settings,
            save=save,
            load=lambda folder: take_up(net, folder, method=recipe.tuning),
            validate=validate,
            thaw=thaw,
        )
        result, ended_by = run_loop(run, recipe, job, self.session, deadline=deadline, checkpoint=checkpoint)
        summary = self._summary(run, result)
        if result.ended == "interrupted":
            return summary
        best = result.best_checkpoint or result.checkpoint
        records, scores = load(best).evaluate(self.split.test, progress=self.session.progress)
        summary = replace(summary, records=tuple(records), seconds=self.session.seconds)
        assert isinstance(ended_by, TagRecipe)  # noqa: S101 - the kind of recipe that went in
        run.publish(best, card=card(run, ended_by, summary), records=records, scores=scores)
        return summary

    def _summary(self, run: Run, result: LoopResult) -> TaggerTuned:
        made = run.header["plan"]
        sentences = result.step * made["batch_size"]
        return TaggerTuned(
            run=run.folder,
            ended=result.ended,
            steps=result.step,
            epochs=sentences / made["sentences"],
            parameters=made["parameters"],
            trained=made["trained_parameters"],
            seconds=self.session.seconds,
            sentences_per_second=sentences / result.seconds if result.seconds else 0.0,
            records=(),
            plan=made,
            skipped=result.skipped,
        )


def _training(recipe: TagRecipe, *, steps: int, precision: Precision) -> Training:
    """The part of a recipe that networks are trained by."""
    wanted = recipe.training
    return Training(
        epochs=0.0,
        batch_size=wanted.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=wanted.weight_decay,
        least_steps=1,
        warmup_share=wanted.warmup_share,
        decay_share=wanted.decay_share,
        patience=None,
        precision=precision,
        steps=steps,
    )
