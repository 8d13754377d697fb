"""Pairs of texts in, a network that rewrites one into the other out: `train`, `plan`, `resume`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rung.data.pair_tokenizer import PairTokenizer
from rung.errors import RunFolderError, UsageError
from rung.evaluation.translation import require_sacrebleu
from rung.progress import SILENT, Progress
from rung.tasks.rewriting.pair_training import JUDGED, PairTraining, Session
from rung.tasks.rewriting.plan import Config, RewritingPlan, make_plan, new_network
from rung.tasks.rewriting.preparation import PreparedPairs, prepare_pairs, read_split
from rung.tasks.rewriting.recipe import BeamSection, RewritingRecipe
from rung.tasks.rewriting.rewriter import Rewriter
from rung.tasks.rewriting.summary import RewritingSummary
from rung.tasks.run import Run, default_folder, require_empty
from rung.training.checkpoint import latest_good
from rung.training.machine import usable_cores
from rung.training.meter import SILENT_DISPLAY, Display
from rung.training.precision import tune_allocator

__all__ = ["RewritingPlan", "RewritingSummary", "plan", "resume", "train"]

DEFAULT_MINUTES = 10.0
_FILES_SECONDS = 2.0  # the last files, the card, the end of the process
_FINISH_SHARE = 0.01  # of the minutes, for what no estimate foresees
_PROBED = 32  # validation sources by which the time of writing the test set is estimated
_CAUTION = 1.2
_CHOICES = 3  # weights that are tried greedily on validation pairs

Files = Sequence[str | Path]


def train(
    texts: Files = (),
    *,
    source: str | None = None,
    target: str | None = None,
    pretrain: Files = (),
    net: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    recipe: RewritingRecipe | Mapping[str, Any] | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    valid: Files = (),
    test: Files = (),
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
    started: float | None = None,
) -> RewritingSummary:
    """Train a network on pairs of texts and leave a run folder, a Marian folder of Hugging Face's for `transformer`.

    `texts` are tables with the columns `source` and `target`, or two files aligned line by line; `valid` and `test`
    likewise, else those parts are split off. With `pretrain`, files and folders of raw text in either language, the
    network first learns to restore hidden spans of it, for `training.pretraining_share` of the time. `net` is
    "transformer" (default) or "lstm", with attention. `minutes` is the wall time of it all, counted from `started` (a
    reading of `time.monotonic()`; default: now); `steps` instead makes a plan and a run that read no clock. Single
    arguments win over `overrides` (dotted keys), those over `recipe`.

        from rung.tasks.rewriting.training import train
        train(["pairs.csv"], source="en", target="de", minutes=30)

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError, EvaluationError or RunFolderError.
    """
    began = time.monotonic() if started is None else started
    wanted = _Wish(
        texts, valid, test, source, target, pretrain, net, minutes, steps, seed, threads, recipe, overrides
    ).as_recipe()
    out = out or default_folder(wanted.pairs.files)
    require_empty(out)
    session = _session(wanted, progress, display, began)
    pairs, deadline, made = _planned(wanted, session)
    run = Run.create(out, recipe=made.recipe, plan=made.to_json(), data=_describe(pairs), parent=None, task="rewriting")
    pairs.tokenizer.save(out, model_max_length=pairs.longest)
    run.write("planned")
    return PairTraining(run, made.recipe, pairs, session).train(deadline=deadline)


def plan(
    texts: Files = (),
    *,
    source: str | None = None,
    target: str | None = None,
    pretrain: Files = (),
    net: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    recipe: RewritingRecipe | Mapping[str, Any] | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    valid: Files = (),
    test: Files = (),
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    started: float | None = None,
) -> RewritingPlan:
    """Do all that `train` does before training, and return what it would do. Arguments and errors as in `train`."""
    began = time.monotonic() if started is None else started
    wanted = _Wish(
        texts, valid, test, source, target, pretrain, net, minutes, steps, seed, threads, recipe, overrides
    ).as_recipe()
    return _planned(wanted, _session(wanted, progress, SILENT_DISPLAY, began))[2]


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> RewritingSummary:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its pairs have changed since.
    """
    opened = Run.open_unfinished(Path(run), threads=threads, instead="train a new one for longer")
    recipe = RewritingRecipe.parse(opened.header["recipe"], where=str(opened.folder))
    session = _session(recipe, progress, display, time.monotonic())
    split = read_split(recipe.pairs, seed=recipe.seed, progress=progress)
    pairs = prepare_pairs(recipe, split, progress, tokenizer=PairTokenizer.load(opened.folder))
    planned = opened.header["data"]
    _require_same("pairs", pairs.split.sha256, planned["sha256"], recipe.pairs.files)
    if pairs.text:
        _require_same(
            "texts to pretrain on", pairs.text.text.sha256, planned["pretraining"]["sha256"], pairs.text.text.files
        )
    checkpoint = latest_good(opened.folder, progress.say)
    return PairTraining(opened, recipe, pairs, session).train(deadline=None, checkpoint=checkpoint)


def _require_same(what: str, found: str, planned: str, files: Sequence[str]) -> None:
    if found != planned:
        raise RunFolderError(
            f"the {what} have changed since this run was planned, so going on would not be the same run",
            where=", ".join(files),
            hint=f"bring the old {what} back, or train anew",
        )


@dataclass(frozen=True)
class _Wish:
    """What a caller asked for: a recipe of its own, and single settings over it."""

    texts: Files
    valid: Files
    test: Files
    source: str | None
    target: str | None
    pretrain: Files
    net: str | None
    minutes: float | None
    steps: int | None
    seed: int | None
    threads: int | None
    recipe: RewritingRecipe | Mapping[str, Any] | Path | None
    overrides: Mapping[str, Any] | None

    def as_recipe(self) -> RewritingRecipe:
        """One recipe of it all. Raises RecipeError or UsageError for what is unknown, contradictory or missing."""
        given = {
            "pairs.files": [str(path) for path in self.texts],
            "pairs.valid": [str(path) for path in self.valid],
            "pairs.test": [str(path) for path in self.test],
            "pairs.source": self.source,
            "pairs.target": self.target,
            "pairs.pretrain": [str(path) for path in self.pretrain],
            "net.family": self.net,
            "seed": self.seed,
            "training.threads": self.threads,
        }
        base = self._base()
        changes = {**(self.overrides or {}), **self._budget(base)}
        wanted = base.with_overrides(changes | {key: value for key, value in given.items() if value not in (None, [])})
        if not wanted.pairs.files:
            hint = "give a table with two columns, or two aligned files: rung train pairs.csv --task translate"
            raise UsageError("there are no pairs to train on", hint=hint)
        if wanted.training.minutes is None and wanted.training.steps is None:
            wanted = wanted.with_overrides({"training.minutes": DEFAULT_MINUTES})
        return wanted

    def _base(self) -> RewritingRecipe:
        if self.recipe is None:
            return RewritingRecipe()
        if isinstance(self.recipe, RewritingRecipe):
            return self.recipe
        if isinstance(self.recipe, Mapping):
            return RewritingRecipe.parse(self.recipe)
        return RewritingRecipe.load(Path(self.recipe))

    def _budget(self, base: RewritingRecipe) -> dict[str, Any]:
        """Minutes or steps given here replace either in the recipe, and with it what was made for another length."""
        if self.minutes is not None and self.steps is not None:
            raise UsageError("minutes and steps contradict each other", hint="give one of them")
        if self.minutes is None and (self.steps is None or self.steps == base.training.steps):
            return {}
        changes = {"training.minutes": self.minutes, "training.steps": self.steps}
        if base.training.schedule is not None:
            made = ("schedule", "pretraining_schedule", "warmup_steps", "validate_every")
            changes |= dict.fromkeys(f"training.{name}" for name in made)
        return changes


def _session(wanted: RewritingRecipe, progress: Progress, display: Display, began: float) -> Session:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("text-to-text networks are trained in one process", hint="start without torchrun")
    require_sacrebleu()
    tune_allocator()
    torch.set_num_threads(wanted.training.threads or usable_cores())
    return Session(progress, display, torch.device("cuda" if torch.cuda.is_available() else "cpu"), began)


def _planned(wanted: RewritingRecipe, session: Session) -> tuple[PreparedPairs, float | None, RewritingPlan]:
    """The pairs, the time by which training must end (None: no clock), and the plan, told to whoever listens."""
    progress = session.progress
    split = read_split(wanted.pairs, seed=wanted.seed, progress=progress)
    pairs = prepare_pairs(wanted, split, progress)
    if wanted.training.minutes is None:
        made = make_plan(wanted, pairs, session.device, None)
        deadline = None
    else:
        whole = 60 * wanted.training.minutes
        latest = session.began + whole * (1 - _FINISH_SHARE) - _FILES_SECONDS
        ends: dict[Config, float] = {}

        def seconds(config: Config) -> float:
            if config not in ends:
                ends[config] = latest - _seconds_of_writing(config, pairs, wanted.beam, session.device)
            return ends[config] - time.monotonic()

        made = make_plan(wanted, pairs, session.device, seconds)
        deadline = min(ends.values())
    for line in made.lines():
        progress.say(line)
    return pairs, deadline, made


def _seconds_of_writing(config: Config, pairs: PreparedPairs, beam: BeamSection, device: torch.device) -> float:
    """How long it will take to write the test set and to choose weights, from writing a few targets.

    A network that has learned nothing does not end its targets: they are cut at the length of the references.
    """
    net = new_network(config, dropout=0.0, seed=0).to(device)
    rewriter = Rewriter(Path(), net, pairs.tokenizer, beam)
    valid, test = pairs.split.valid, len(pairs.split.test)
    length = int(pairs.valid.targets.lengths.mean()) + 2
    sources = [text for text in valid.sources[:_PROBED] if len(text) < config.max_position_embeddings]
    rewriter.rewrite_many(sources, max_tokens=2)
    began = time.perf_counter()
    rewriter.rewrite_many(sources, max_tokens=min(length, config.max_position_embeddings))
    taken = time.perf_counter() - began
    greedy = _CHOICES * min(len(valid), JUDGED) / beam.num_beams
    return _CAUTION * taken / max(len(sources), 1) * (test + greedy)


def _describe(pairs: PreparedPairs) -> dict[str, Any]:
    """What `rung.json` says about the data."""
    split = pairs.split
    return {
        "sha256": split.sha256,
        "source": split.train.source_name,
        "target": split.train.target_name,
        "train_pairs": len(pairs.train),
        "valid_pairs": len(pairs.valid),
        "test_pairs": len(split.test),
        "target_tokens": pairs.target_tokens,
        "test_sha256": split.test.sha256,
        "remarks": list(pairs.remarks),
        **({"pretraining": pairs.text.describe()} if pairs.text else {}),
    }
