"""A base and conversations in, a model to talk with out: `tune`, `plan`, `resume`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rung.data.packing import HeldOutRows, TrainingRows
from rung.evaluation.intervals import compare
from rung.generation.engine import Engine
from rung.nets.adapters import load_adapter
from rung.nets.decoder import CausalLM
from rung.nets.language_models import load_language_model
from rung.objectives.answers import AnswerTokens
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.tasks.bases import base_record
from rung.tasks.chat.folder import save_chat_model
from rung.tasks.chat.measuring import (
    ANSWER_LOSS,
    Answer,
    answer_losses,
    answer_prompts,
    answer_records,
    loss_record,
)
from rung.tasks.chat.plan import ChatPlan, compute_dtype, facts_of, loop_settings, make_plan, optimizer_of
from rung.tasks.chat.preflight import preflight
from rung.tasks.chat.preparation import ChatBase, PreparedChat, prepare
from rung.tasks.chat.recipe import ChatRecipe, Wish
from rung.tasks.chat.summary import BEFORE, ChatTuned, card
from rung.tasks.run import Run, free_folder, require_empty
from rung.tasks.tuning.frame import Job, Session, open_interrupted, require_unchanged, run_loop
from rung.tasks.tuning.method import TuningMethod, apply_method
from rung.tasks.tuning.tune import TUNED_FOR
from rung.training.checkpoint import Checkpoint, latest_good
from rung.training.contracts import LoopResult, Validation
from rung.training.distributed import alone
from rung.training.meter import SILENT_DISPLAY, Display
from rung.training.precision import tune_allocator
from rung.training.validation import mean_loss

Files = Sequence[str | Path]
_BUDGET = {"training.epochs": 2.0}
_EXAMPLE = "rung tune smollm2 talks.jsonl --task chat"
_SHOWN_ANSWERS = 3


def tune(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
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
) -> ChatTuned:
    """Tune the decoder `base` to answer as the assistant does in the conversations `data`, and leave a run folder.

    `data` are conversations (see `rung.data.conversations`); 5 % are split off to choose the checkpoint and 10 % to
    test on, unless `valid` and `test` bring them. The base's own chat template is used, or ChatML where it has none.
    Only the assistant's words and ends of turns are learned. `method` (default: full; or LoRA) says which weights move.
    `minutes` is the wall time of it all, counted from `started` (a reading of `time.monotonic()`; default: now);
    `epochs` (default: 2) or `steps` read no clock.

    Raises UsageError, RecipeError, DataError, TokenizerError, PlanError, TrainingError or RunFolderError.
    """
    began = time.monotonic() if started is None else started
    wish = Wish(base, data, method, minutes, epochs, steps, seed, threads, valid, test, overrides)
    recipe = wish.as_recipe(ChatRecipe, budget=_BUDGET, example=_EXAMPLE)
    out = out or free_folder(f"{Path(recipe.data.files[0]).name.split('.')[0]}-{Path(base).name.split('.')[0]}")
    require_empty(out)
    session = _session(progress, display, began)
    deadline = session.deadline(recipe.training.minutes)
    made, prepared = _planned(recipe, progress, deadline)
    run = Run.create(
        out,
        recipe=made.recipe,
        plan=made.to_json(),
        data={"sha256": prepared.sha256, **facts_of(prepared)},
        parent=base_record(prepared.base.folder),
    )
    run.header[TUNED_FOR] = "chat"
    run.write("planned")
    latest = None if deadline is None else deadline - made.seconds_after
    return _Tuning(run, made.recipe, prepared, session).go(deadline=latest)


def plan(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
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
) -> ChatPlan:
    """Do all that `tune` does before tuning, and return what it would do. Arguments and errors as in `tune`."""
    began = time.monotonic() if started is None else started
    wish = Wish(base, data, method, minutes, epochs, steps, seed, threads, valid, test, overrides)
    recipe = wish.as_recipe(ChatRecipe, budget=_BUDGET, example=_EXAMPLE)
    session = _session(progress, SILENT_DISPLAY, began)
    return _planned(recipe, progress, session.deadline(recipe.training.minutes))[0]


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> ChatTuned:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its base or conversations have changed since.
    """
    opened = open_interrupted(run, threads=threads)
    recipe = ChatRecipe.parse(opened.header["recipe"], where=str(opened.folder / "rung.json"))
    session = _session(progress, display, time.monotonic())
    recipe, prepared = prepare(recipe, progress)
    require_unchanged(opened, base=recipe.base, data_sha256=prepared.sha256, files=recipe.data.files)
    checkpoint = latest_good(opened.folder, progress.say)
    return _Tuning(opened, recipe, prepared, session).go(deadline=None, checkpoint=checkpoint)


def tuned_network(base: ChatBase, recipe: ChatRecipe) -> CausalLM:
    """The base as `recipe` tunes it, before any step: what moves is trainable, new tokens have rows."""
    net = base_network(base, recipe)
    apply_method(net, recipe.tuning, seed=recipe.seed)
    return net


def base_network(base: ChatBase, recipe: ChatRecipe) -> CausalLM:
    """The base as it is, in the dtype to compute in and where it shall compute."""
    net = base.network()
    net.compute_dtype = compute_dtype(recipe)
    return net.to("cuda" if torch.cuda.is_available() else "cpu")


def load_trained(net: CausalLM, folder: Path, method: TuningMethod) -> None:
    """Give `net`, as `tuned_network` made it, the weights of a checkpoint."""
    if method.kind == "lora":
        load_adapter(net, folder)
    else:
        net.load_state_dict(load_language_model(folder).state_dict())


def _session(progress: Progress, display: Display, began: float) -> Session:
    tune_allocator()
    return Session(progress, display, began)


def _planned(recipe: ChatRecipe, progress: Progress, deadline: float | None) -> tuple[ChatPlan, PreparedChat]:
    """The plan, told to whoever listens, after three examples of what will be learned."""
    recipe, prepared = prepare(recipe, progress)
    for example in preflight(prepared.rows["train"].examples, prepared.base.tokenizer):
        progress.say(example)
    net = tuned_network(prepared.base, recipe)
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    made = make_plan(recipe, prepared, net, seconds=left)
    for line in made.lines():
        progress.say(line)
    return made, prepared


class _Tuning:
    """Tunes a run by its recipe, measures it, and makes its folder a model: the same for new and resumed runs."""

    def __init__(self, run: Run, recipe: ChatRecipe, prepared: PreparedChat, session: Session) -> None:
        """Take a run whose recipe has no gaps, and its conversations as rows."""
        self.run, self.recipe, self.prepared, self.session = run, recipe, prepared, session
        torch.set_num_threads(recipe.training.threads or torch.get_num_threads())

    def go(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> ChatTuned:
        """Tune from `checkpoint` or from the base until the schedule ends."""
        recipe = self.recipe
        net = tuned_network(self.prepared.base, recipe)
        job = Job(
            net=net,
            objective=AnswerTokens(),
            batches=TrainingRows(self.prepared.rows["train"], seed=recipe.seed),
            optimizer=optimizer_of(net, recipe),
            settings=loop_settings(recipe),
            save=lambda folder: self._save(net, folder),
            load=lambda folder: load_trained(net, folder, recipe.tuning),
            validate=lambda: self._validation(net),
        )
        result, _ = run_loop(self.run, recipe, job, self.session, deadline=deadline, checkpoint=checkpoint)
        if result.ended == "interrupted":
            return self._summary(result)
        best = result.best_checkpoint or result.checkpoint
        if best != result.checkpoint:
            load_trained(net, best, recipe.tuning)
        return self._publish(net, best, result)

    def _save(self, net: CausalLM, folder: Path) -> None:
        save_chat_model(net, self.prepared.base, folder, method=self.recipe.tuning, record=self.run.header["parent"])

    def _validation(self, net: CausalLM) -> Validation:
        held_out = HeldOutRows(self.prepared.rows["valid"])
        found = mean_loss(
            net,
            AnswerTokens(),
            held_out,
            samples=len(held_out),
            batch_size=self.recipe.training.micro_batch_size or 1,
            world=alone(next(net.parameters()).device),
        )
        return Validation(found["loss"], {"loss": found["loss"]})

    def _publish(self, net: CausalLM, best: Path, result: LoopResult) -> ChatTuned:
        """Measure the base and the best checkpoint on test conversations, and make the run folder that model."""
        before = self._losses(base_network(self.prepared.base, self.recipe), "measuring the base")
        after = self._losses(net, "measuring the tuned model")
        answers = self._answers(net)
        sha256 = self.prepared.split.test.sha256
        records: list[Record] = [
            loss_record(after, data_sha256=sha256),
            loss_record(before, data_sha256=sha256, name=BEFORE),
            compare(after, before, name=ANSWER_LOSS, unit="nats/token"),
        ]
        scores = {ANSWER_LOSS: after, BEFORE: before}
        if answers:
            most = self.recipe.measuring.max_tokens
            more, by_answer = answer_records(answers, data_sha256=sha256, max_tokens=most)
            records, scores = records + more, scores | by_answer
        summary = self._summary(result)
        summary = replace(summary, records=tuple(records), answers=tuple(answers[:_SHOWN_ANSWERS]))
        recipe = ChatRecipe.parse(self.run.header["recipe"])
        self.run.publish(best, card=card(self.run, recipe, summary), records=records, scores=scores)
        return summary

    def _losses(self, net: CausalLM, label: str) -> ItemScores:
        return answer_losses(
            net,
            self.prepared.rows["test"],
            [item.id for item in self.prepared.kept("test").items],
            batch_size=self.recipe.training.micro_batch_size or 1,
            progress=self.session.progress,
            label=label,
        )

    def _answers(self, net: CausalLM) -> list[Answer]:
        base, measuring = self.prepared.base, self.recipe.measuring
        asked = self.prepared.kept("test").items[: measuring.prompts]
        if not asked:
            return []
        net.eval()
        engine = Engine(net, base.tokenizer, precision=self.recipe.training.precision or "fp32")
        return answer_prompts(
            engine,
            base.template,
            base.tokenizer,
            asked,
            end_of_turn=base.end_of_turn,
            max_tokens=measuring.max_tokens,
            progress=self.session.progress,
        )

    def _summary(self, result: LoopResult) -> ChatTuned:
        made = self.run.header["plan"]
        return ChatTuned(
            run=self.run.folder,
            ended=result.ended,
            steps=result.step,
            epochs=result.step * (self.recipe.training.batch_size or 1) / len(self.prepared.rows["train"]),
            parameters=made["parameters"],
            trained=made["trained_parameters"],
            seconds=self.session.seconds,
            tokens_per_second=result.targets / result.seconds if result.seconds else 0.0,
            plan=made,
            skipped=result.skipped,
        )
