"""A base and rows of texts that belong together in, a sentence encoder out: `tune`, `plan`, `resume`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rung.data.related_texts import RelatedSplit, RelatedTexts, read_related, split_related
from rung.nets.adapters import load_adapter
from rung.nets.lora import merge_lora, unmerge_lora
from rung.nets.sentence_folder import body_folder, load_pooler, load_sentence_net, save_sentence_net
from rung.progress import SILENT, Progress
from rung.runfolder import write_folder
from rung.tasks.bases import base_record, resolve_base
from rung.tasks.classification.network_training import device, optimizer_of, threads_of
from rung.tasks.run import Run, free_folder, require_empty
from rung.tasks.similarity.encoder import SentenceEncoder, load_sentence_encoder
from rung.tasks.similarity.measuring import BEFORE, Measured, measure
from rung.tasks.similarity.tuning_plan import (
    SimilarityPlan,
    batches_of,
    encoded,
    loop_settings,
    make_plan,
    objective_of,
    training_of,
)
from rung.tasks.similarity.tuning_recipe import SimilarityRecipe, wished
from rung.tasks.similarity.tuning_summary import SimilarityTuned, card
from rung.tasks.tuning.folder import save_tuned
from rung.tasks.tuning.frame import Job, Session, open_interrupted, require_unchanged, run_loop
from rung.tasks.tuning.method import TuningMethod, apply_method, gradual_unfreezing, rate_of
from rung.tasks.tuning.tune import TUNED_FOR
from rung.training.checkpoint import CHECKPOINTS, Checkpoint, latest_good
from rung.training.contracts import LoopResult, Validation
from rung.training.machine import usable_cores
from rung.training.meter import SILENT_DISPLAY, Display

Files = Sequence[str | Path]
TASK = "similarity"


def tune(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    text: Sequence[str] = (),
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
) -> SimilarityTuned:
    """Tune the encoder `base` to the rows in `data`, and leave a run folder that sentence-transformers opens too.

    `data` are tables of pairs with a score (column `target`), of pairs that belong together, or of triplets (anchor,
    positive, negative); `text` names their columns where that is not clear. Validation and test rows are split off so
    that no text is in two parts, unless files are given. `method` (default: full) says which weights move; what LoRA
    has learned is merged into the base in the end. `minutes` is the wall time of it all, counted from `started` (a
    reading of `time.monotonic()`; default: now); `epochs` (default: 4) or `steps` read no clock.

        from rung.tasks.similarity.tuning import tune
        tune("minilm", ["pairs.csv"], text=["question", "other"], target="score", steps=500)

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError or RunFolderError, each saying what to do.
    """
    session = Session(progress, display, time.monotonic() if started is None else started)
    recipe = wished(
        base, _names(data), method, overrides, _given(text, target, minutes, epochs, steps, seed, threads, valid, test)
    )
    out = out or free_folder(f"{Path(recipe.rows.files[0]).name.split('.')[0]}-{Path(base).name.split('.')[0]}")
    require_empty(out)
    with threads_of(recipe.training.threads or usable_cores()):
        deadline = session.deadline(recipe.training.minutes)
        model, split = _opened(recipe, progress)
        made = _planned(recipe, model, split, deadline)
        for line in made.lines():
            progress.say(line)
        run = Run.create(
            out,
            recipe=made.recipe,
            plan=made.to_json(),
            data=_describe(split),
            parent=_parent(recipe.base),
            task=TASK,
        )
        run.header[TUNED_FOR] = TASK
        run.write("planned")
        latest = None if deadline is None else deadline - made.seconds_after
        return _Tuning(run, made.recipe, model, split, session).go(deadline=latest)


def plan(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    text: Sequence[str] = (),
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
) -> SimilarityPlan:
    """Do all that `tune` does before tuning, and return what it would do. Arguments and errors as in `tune`."""
    session = Session(progress, SILENT_DISPLAY, time.monotonic() if started is None else started)
    given = _given(text, target, minutes, epochs, steps, seed, threads, valid, test)
    recipe = wished(base, _names(data), method, overrides, given)
    with threads_of(recipe.training.threads or usable_cores()):
        return _planned(recipe, *_opened(recipe, progress), session.deadline(recipe.training.minutes))


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> SimilarityTuned:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its base or rows have changed since.
    """
    session = Session(progress, display, time.monotonic())
    opened = open_interrupted(run, threads=threads)
    recipe = SimilarityRecipe.parse(opened.header["recipe"], where=str(opened.folder / "rung.json"))
    with threads_of(recipe.training.threads or usable_cores()):
        model, split = _opened(recipe, progress)
        place = str(body_folder(resolve_base(recipe.base)))
        require_unchanged(opened, base=place, data_sha256=split.sha256, files=recipe.rows.files)
        apply_method(model.net, recipe.tuning, seed=recipe.seed)
        checkpoint = latest_good(opened.folder, progress.say)
        return _Tuning(opened, recipe, model, split, session).go(deadline=None, checkpoint=checkpoint)


def _names(files: Files) -> tuple[str, ...]:
    return tuple(map(str, files))


def _given(  # noqa: PLR0917 - the arguments of `tune`, one by one
    text: Sequence[str],
    target: str | None,
    minutes: float | None,
    epochs: float | None,
    steps: int | None,
    seed: int | None,
    threads: int | None,
    valid: Files,
    test: Files,
) -> dict[str, Any]:
    return {
        "rows.text": tuple(text),
        "rows.score": target,
        "rows.valid": _names(valid),
        "rows.test": _names(test),
        "training.minutes": minutes,
        "training.epochs": epochs,
        "training.steps": steps,
        "training.threads": threads,
        "seed": seed,
    }


def _opened(recipe: SimilarityRecipe, progress: Progress) -> tuple[SentenceEncoder, RelatedSplit]:
    """The base, checked before any data is read, and the rows in three parts."""
    model = load_sentence_encoder(recipe.base)
    if model.note:
        progress.say(model.note)
    named = recipe.rows

    def read(files: tuple[str, ...]) -> RelatedTexts | None:
        return read_related(files, text=named.text, score=named.score, progress=progress) if files else None

    rows = read_related(named.files, text=named.text, score=named.score, progress=progress)
    split = split_related(rows, valid=read(named.valid), test=read(named.test), seed=recipe.seed)
    return model, split


def _planned(
    recipe: SimilarityRecipe, model: SentenceEncoder, split: RelatedSplit, deadline: float | None
) -> SimilarityPlan:
    apply_method(model.net, recipe.tuning, seed=recipe.seed)
    return make_plan(recipe, model, split, seconds=None if deadline is None else deadline - time.monotonic())


def _parent(base: str) -> dict[str, Any]:
    """The record of the base; where its body lies in a subfolder, of that."""
    folder = resolve_base(base)
    return {**base_record(body_folder(folder)), **({} if body_folder(folder) == folder else {"origin": base})}


def _describe(split: RelatedSplit) -> dict[str, Any]:
    """What `rung.json` says about the data."""
    parts = {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)}
    return {"sha256": split.sha256, "kind": split.train.kind, "remarks": list(split.remarks), **parts}


@dataclass
class _Tuning:
    """Tunes a run by its recipe, measures it, and makes its folder a model: the same path for new and resumed runs."""

    run: Run
    recipe: SimilarityRecipe
    model: SentenceEncoder
    split: RelatedSplit
    session: Session

    def go(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> SimilarityTuned:
        """Tune from `checkpoint` or from the base until the schedule ends."""
        before = measure(load_sentence_encoder(self.recipe.base), self.split.test, progress=self.session.progress)
        result, recipe = run_loop(
            self.run, self.recipe, self._job(), self.session, deadline=deadline, checkpoint=checkpoint
        )
        if result.ended == "interrupted":
            return self._summary(result)
        self.recipe = SimilarityRecipe.parse(recipe.to_json())
        return self._publish(result, before)

    def _job(self) -> Job:
        recipe, model, train = self.recipe, self.model, self.split.train
        net, training, settings = model.net.to(device()), training_of(recipe), loop_settings(recipe, len(train))
        thaw = None
        if recipe.tuning.gradual:
            per_epoch = max(1, round(len(train) / settings.batch_size))
            thaw = gradual_unfreezing(net, steps_per_epoch=per_epoch, epochs=settings.schedule.steps / per_epoch)
        columns = encoded(model, train, recipe.training.max_length or model.max_length)
        return Job(
            net,
            objective_of(recipe, train),
            batches_of(recipe, model, train, columns),
            optimizer_of(net, training, rate_of=rate_of(net, recipe.tuning)),
            settings,
            save=self._save,
            load=self._load,
            validate=self._validate,
            thaw=thaw,
        )

    def _validate(self) -> Validation:
        """What is measured on test rows, on validation rows: the weights that do best are kept."""
        found = measure(self.model, self.split.valid).headline
        return Validation(1 - found, {"spearman" if self.split.valid.scores is not None else "recall_at_1": found})

    def _save(self, folder: Path) -> None:
        """A checkpoint: the whole encoder, or with LoRA what is trained."""
        if self.recipe.tuning.lora is None:
            self._save_whole(folder)
        else:
            save_tuned(
                self.model.net, folder, method=self.recipe.tuning, base=self.run.header["parent"], task_type=None
            )

    def _save_whole(self, folder: Path) -> None:
        pooler = load_pooler(resolve_base(self.recipe.base))
        save_sentence_net(self.model.net, folder, pooler=pooler)
        self.model.encoder.save(folder, model_max_length=self.model.max_length)

    def _load(self, folder: Path) -> None:
        """Give the network the weights of a checkpoint."""
        if self.recipe.tuning.lora is None:
            self.model.net.load_state_dict(load_sentence_net(folder).state_dict())
        else:
            load_adapter(self.model.net, folder)

    def _publish(self, result: LoopResult, before: Measured) -> SimilarityTuned:
        """Take the weights that did best on validation rows, measure them on test rows, and make the run that model."""
        progress = self.session.progress
        self._load(result.best_checkpoint or result.checkpoint)
        folder = self.run.folder / CHECKPOINTS / "published"
        merged = merge_lora(self.model.net)
        write_folder(folder, self._save_whole, {"kind": "checkpoint", "task": TASK})
        unmerge_lora(self.model.net, merged)
        after = measure(load_sentence_encoder(folder), self.split.test, progress=progress)
        first = before.records()[0]
        untuned = first.model_copy(update={"name": f"{first.name} {BEFORE}"})
        records = (*after.records(), untuned, after.gain(before))
        summary = replace(self._summary(result), records=records, seconds=self.session.seconds)
        text = card(self.run, self.recipe, summary)
        scores = {"test": after.scores(), "test-before": before.scores()}
        self.run.publish(folder, card=text, records=records, scores=scores)
        return summary

    def _summary(self, result: LoopResult) -> SimilarityTuned:
        planned = self.run.header["plan"]
        rows = result.step * training_of(self.recipe).batch_of(planned["rows"])
        return SimilarityTuned(
            run=self.run.folder,
            ended=result.ended,
            steps=result.step,
            epochs=rows / planned["rows"],
            parameters=planned["parameters"],
            trained=planned["trained_parameters"],
            seconds=self.session.seconds,
            rows_per_second=rows / result.seconds if result.seconds else 0.0,
            records=(),
            plan=planned,
            remarks=self.split.remarks,
            skipped=result.skipped,
        )
