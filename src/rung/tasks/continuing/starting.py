"""`carry_on` and `resume`: new text for a language model that was trained on other text before.

The learning rate is warmed up to the parent's and lowered again (Ibrahim et al. 2024, arXiv 2403.08763, section 4.1:
re-warming and re-decaying, with a little replay, matches training on both texts from the beginning). Optimiser moments
begin anew: they belong to the end of a decay.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.data.labelled import LabelledItems
from rung.data.tokenizer import Tokenizer
from rung.errors import EvaluationError, RunFolderError, UsageError
from rung.progress import SILENT, Progress
from rung.recipe import Recipe
from rung.runfolder import HEADER_NAME
from rung.tasks.continuing.asked import Continuation
from rung.tasks.continuing.drifting import DriftReport, measure_drift
from rung.tasks.continuing.old_text import OldText, ancestry, prepare_old
from rung.tasks.continuing.task_scores import ASKING_SHARE, TaskItems, TaskTable, draw_items, read_tables, unread
from rung.tasks.continuing.training import ContinuedTraining, weights_sha256
from rung.tasks.prompting.local_model import LocalModel
from rung.tasks.ranked_training import Session, open_session
from rung.tasks.run import Run, TrainSummary, model_folder, require_empty
from rung.tasks.text_planning import plan_network, same_text, start_run
from rung.tasks.text_preparation import PreparedText, is_counted, prepare_text
from rung.tasks.text_training import FORWARD_SPEEDUP, training_deadline
from rung.training.checkpoint import latest_good
from rung.training.meter import SILENT_DISPLAY, Display
from rung.training.plan import Plan

DEFAULT_MINUTES = 10.0
_FIXED = ("net.", "tokenizer.")
_MAY_CHANGE = ("net.dropout", "net.dropout_kind")
_DECIDED_ANEW = (
    "warmup_steps",
    "schedule",
    "compile",
    "precision",
    "validate_every",
    "checkpoint_every",
    "patience",
    "vital_signs_every",
)


def carry_on(
    parent: str | Path,
    texts: Sequence[str | Path],
    *,
    replay: float = 0.0,
    penalty: float = 0.0,
    tasks: Sequence[str | Path] = (),
    target: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    valid: Sequence[str | Path] = (),
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
    started: float | None = None,
) -> TrainSummary:
    """Train the language model of the finished run `parent` on with `texts`, in a run folder of its own.

    The network and the tokenizer are the parent's. `replay` is the share of each step's rows that are windows of the
    text that the parent (and the runs before it) read; `penalty` pulls the weights back towards the parent's after
    each step, by learning rate x `penalty` of the distance, and replaces weight decay. `overrides` are settings of the
    recipe other than those of network and tokenizer. The other arguments are those of `train`.

    In the end the model is measured on held-out new and old text and compared with the parent on the same documents.
    So it is on `tasks`, labelled tables whose items are asked about by prompts without an example (a decoder only);
    as many items are drawn as take 3 % of the training time, before and again after. `target` is their column of
    labels; it is guessed by default.

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError or RunFolderError, each saying what to do.
    """
    began = time.monotonic() if started is None else started
    wish = _wish(
        parent,
        texts,
        replay=replay,
        penalty=penalty,
        tasks=tasks,
        target=target,
        minutes=minutes,
        steps=steps,
        overrides=overrides,
        valid=valid,
        seed=seed,
        threads=threads,
    )
    out = out or wish.parent.folder.with_name(f"{wish.parent.folder.name}-carried-on")
    deadline = training_deadline(wish.recipe.training.minutes, began)
    with open_session(progress, display, began) as session:
        if session.world.is_main:
            require_empty(out)
            ready = _ready(wish, deadline, session)
            start_run(
                out,
                ready.plan.plan,
                ready.text,
                parent=_named(wish.parent),
                continues={
                    **wish.asked.to_json(),
                    "old": [one.to_json() for one in ready.read_before],
                    "tasks": [one.to_json() for one in ready.plan.tasks],
                },
            )
            training = ContinuedTraining(Run.open(out), ready.text, session, old=ready.old, asked=wish.asked)
            measuring = training.measure_before(ready.drift, ready.not_measured, ready.plan.tasks)
            if deadline is not None:
                deadline -= measuring  # the same is measured again after training
        session.world.wait_for_all()
        return _opened(Run.open(out), session).train(deadline=deadline)


def plan_carry_on(
    parent: str | Path,
    texts: Sequence[str | Path],
    *,
    progress: Progress = SILENT,
    started: float | None = None,
    **wishes: Any,
) -> ContinuedPlan:
    """Do all that `carry_on` does before training, and return what it would do. Other arguments and errors as there."""
    began = time.monotonic() if started is None else started
    wish = _wish(parent, texts, **wishes)
    with open_session(progress, SILENT_DISPLAY, began) as session:
        return _ready(wish, training_deadline(wish.recipe.training.minutes, began), session).plan


@dataclass(frozen=True)
class ContinuedPlan:
    """What carrying on would do. `plan` forecasts bits per byte of a network that begins from nothing: untold here."""

    plan: Plan
    asked: Continuation
    tasks: tuple[TaskItems, ...] = ()

    def lines(self) -> list[str]:
        """The plan for people."""
        network, training, *_ = self.plan.lines()
        scored = [one.line() for one in self.tasks]
        return [network, f"{training}, {self.asked.replay:.0%} of it old text", *scored]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        told = {key: value for key, value in self.plan.to_json().items() if key != "predicted_bits_per_byte"}
        return {**told, **self.asked.to_json(), "tasks": [one.to_json() for one in self.tasks]}


@dataclass(frozen=True)
class _Wish:
    """The run to begin from, and what is asked for."""

    parent: Run
    asked: Continuation
    tasks: Sequence[str | Path]
    target: str | None
    recipe: Recipe


@dataclass(frozen=True)
class _Ready:
    """All that is known before the run folder is written: texts, how far they are apart, and the plan."""

    text: PreparedText
    read_before: Sequence[OldText]
    old: Sequence[PreparedText]
    drift: DriftReport | None
    not_measured: dict[str, str]
    plan: ContinuedPlan


def _wish(
    parent: str | Path,
    texts: Sequence[str | Path],
    *,
    replay: float = 0.0,
    penalty: float = 0.0,
    tasks: Sequence[str | Path] = (),
    target: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    valid: Sequence[str | Path] = (),
    seed: int | None = None,
    threads: int | None = None,
) -> _Wish:
    """Check what a caller asked for; see `carry_on`."""
    asked = Continuation(replay, penalty)
    begun_from = _finished(Path(parent))
    if not texts:
        raise UsageError("there is no new text", hint="give files or folders: rung train --from RUN new_texts/")
    if tasks and begun_from.recipe.net.family != "decoder":
        raise UsageError(
            f"only a decoder is asked by prompts, and this run's network is another: {begun_from.recipe.net.family}",
            where="--eval",
            hint="leave it out",
        )
    if minutes is not None and steps is not None:
        raise UsageError("minutes and steps contradict each other", hint="give one of them")
    given: dict[str, Any] = {
        "text.files": [str(path) for path in texts],
        "text.valid": [str(path) for path in valid],
        "training.minutes": DEFAULT_MINUTES if minutes is None and steps is None else minutes,
        "training.steps": steps,
        "training.threads": threads,
    }
    given |= {} if seed is None else {"seed": seed}
    recipe = _recipe(begun_from.recipe, asked, given, overrides or {})
    return _Wish(begun_from, asked, tasks, target, recipe)


def _ready(wish: _Wish, deadline: float | None, session: Session) -> _Ready:
    """Prepare the texts, compare them, and plan; the plan is said."""
    tables = read_tables(wish.tasks, wish.target, session.progress)
    model = LocalModel(model_folder(wish.parent.folder)) if tables else None
    read_before = ancestry(wish.parent)
    text = prepare_text(wish.recipe, session.progress, tokenizer=Tokenizer.load(wish.parent.folder))
    old, missing = prepare_old(read_before, text.tokenizer, session.progress, needed=wish.asked.replay > 0)
    drift, not_measured = _drift(text, old, missing, session.progress)
    held_out = _held_out(tables, (text, *old), session.progress)
    if deadline is not None and tables:
        deadline -= 2 * ASKING_SHARE * max(0.0, deadline - time.monotonic())
    planned = plan_network(wish.recipe, text, deadline, session)
    tokens = planned.tokens * ASKING_SHARE * FORWARD_SPEEDUP / max(1, len(tables))
    tasks = tuple(draw_items(*table, model, tokens=tokens) for table in held_out) if model else ()
    plan = ContinuedPlan(planned, wish.asked, tasks)
    for line in plan.lines():
        session.progress.say(line)
    return _Ready(text, read_before, old, drift, not_measured, plan)


def _held_out(
    tables: Sequence[tuple[TaskTable, LabelledItems]], texts: Sequence[PreparedText], progress: Progress
) -> list[tuple[TaskTable, LabelledItems, int]]:
    """The tables without what stands in the training part of any text: see `unread`."""
    if not tables:
        return []
    corpora = [text.corpus for text in texts]
    total = sum(corpus.num_documents("train") for corpus in corpora)
    with progress.task("looking for labelled items in the text", total, "documents") as advance:

        def documents() -> Iterator[str]:
            for corpus in corpora:
                for text in corpus.texts("train"):
                    yield text
                    advance(1)

        return unread(tables, documents())


def resume(run: Run, session: Session) -> TrainSummary:
    """Go on with an interrupted run that was carried on from another; see `rung.tasks.language_modelling.resume`."""
    training = _opened(run, session)
    return training.train(deadline=None, checkpoint=latest_good(run.folder, session.progress.say))


def is_carried_on(run: Run) -> bool:
    """Whether `run` began with another run's weights and text of its own."""
    return run.header.get("continues") is not None


def _opened(run: Run, session: Session) -> ContinuedTraining:
    """The training of a planned run, with its texts as they were. RunFolderError when one of them has changed."""
    stored = run.header["continues"]
    asked = Continuation(stored["replay"], stored["penalty"])
    text = same_text(run, session.progress)
    old = tuple(OldText(**entry) for entry in stored["old"])
    olds, _ = prepare_old(old, text.tokenizer, session.progress, needed=asked.replay > 0)
    return ContinuedTraining(run, text, session, old=olds, asked=asked)


def _finished(folder: Path) -> Run:
    """The run to begin from. Raises RunFolderError or UsageError when it is none that can be carried on."""
    if folder.is_dir() and not (folder / HEADER_NAME).exists():
        raise RunFolderError(
            "this is not a run of ours, so nobody knows what text it was trained on",
            where=str(folder),
            hint=f"tune it instead: rung tune {folder} TEXT --task text",
        )
    run = Run.open(folder)
    if run.header["state"] != "finished":
        raise RunFolderError(
            "this run is not finished", where=str(folder), hint=f"finish it first: rung train --resume {folder}"
        )
    if is_counted(run.recipe):
        raise UsageError(
            "an n-gram model counts its text once: there are no weights to carry on from",
            where=str(folder),
            hint="count both texts together: rung train OLD NEW --net ngram",
        )
    return run


def _named(parent: Run) -> dict[str, Any]:
    """How the child names its parent: folder, step, and the hash of the weights it begins with."""
    step = int(str(parent.header.get("published", "step-0")).rpartition("-")[2])
    weights = weights_sha256(model_folder(parent.folder))
    return {"run": str(parent.folder.resolve()), "step": step, "weights_sha256": weights}


def _recipe(parent: Recipe, asked: Continuation, given: Mapping[str, Any], overrides: Mapping[str, Any]) -> Recipe:
    """The parent's recipe over what was `given`; what depends on text and length is left to the plan.

    Raises UsageError where `overrides` would change the network or the tokenizer.
    """
    fixed = [key for key in overrides if key.startswith(_FIXED) and key not in _MAY_CHANGE]
    if fixed:
        raise UsageError(
            f"{fixed[0]} is the parent's and cannot be changed",
            where="--set",
            hint="carry on without it, or train anew from both texts",
        )
    changes: dict[str, Any] = {f"training.{name}": None for name in _DECIDED_ANEW}
    changes |= {"text.text_column": None, "net.dropout": None, "training.tensorboard": False}
    changes |= {"training.weight_decay": 0.0} if asked.penalty else {}
    return parent.with_overrides({**changes, **given, **overrides})


def _drift(
    text: PreparedText, olds: Sequence[PreparedText], missing: str | None, progress: Progress
) -> tuple[DriftReport | None, dict[str, str]]:
    """How the new text differs from the old ones, said at once; or why that and the loss on them are not measured."""
    if missing is not None:
        return None, {"loss on the old text, and drift": missing}
    try:
        found = measure_drift(olds, text, seed=0)
    except EvaluationError as error:
        return None, {"drift": error.problem}
    for line in found.lines():
        progress.say(line)
    return found, {}
