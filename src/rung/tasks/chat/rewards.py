"""A chat model and problems with checkable answers in, one that solves more of them out: `tune`, `resume` (GRPO)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rung.data.checkable import Problems, read_problems, split_problems
from rung.errors import PlanError
from rung.evaluation.intervals import compare
from rung.evaluation.proportions import wilson
from rung.generation.matrices import Precision
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.tasks.bases import base_record
from rung.tasks.chat.folder import save_chat_model
from rung.tasks.chat.plan import compute_dtype, loop_settings, optimizer_of
from rung.tasks.chat.preparation import ChatBase, dated, open_base, require_learnable
from rung.tasks.chat.recipe import Wish
from rung.tasks.chat.reward_recipe import RewardRecipe
from rung.tasks.chat.reward_summary import BEFORE, SOLVED, RewardTuned, card
from rung.tasks.chat.rollouts import ProblemBatches, Rollouts, solved_shares
from rung.tasks.chat.tuning import base_network, load_trained, tuned_network
from rung.tasks.run import Run, free_folder, require_empty
from rung.tasks.tuning.frame import Job, Session, open_interrupted, require_unchanged, run_loop
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import TUNED_FOR
from rung.training.checkpoint import Checkpoint, latest_good
from rung.training.contracts import LoopResult, Validation
from rung.training.guards import GuardSettings
from rung.training.machine import has_bf16_instructions, usable_cores
from rung.training.meter import SILENT_DISPLAY, Display
from rung.training.precision import tune_allocator
from rung.training.schedule import Schedule

Files = Sequence[str | Path]
_BUDGET = {"training.steps": 50}
_EXAMPLE = "rung tune smollm2 problems.jsonl --task reward"
_BATCH_PROMPTS = 4
_VALIDATIONS = 4
_FILES_SECONDS = 4.0
_FORWARD_SHARE = 0.6  # of a step a prompt and answer, to answer greedily


def tune(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    minutes: float | None = None,
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
) -> RewardTuned:
    """Let the chat model `base` try the problems `data` and learn from what was right; leave a run folder (GRPO).

    `data` are problems (see `rung.data.checkable`); 5 % are split off to choose the checkpoint and 10 % to test on,
    unless `valid` and `test` bring them. In each step `reward.answers` answers are sampled to each of some prompts; an
    answer earns 1 by being right and `reward.ended` by ending its turn. `method` (default: full; or LoRA) says which
    weights move. `minutes` is the wall time of it all, counted from `started`; `steps` (default: 50) reads no clock.

    Raises UsageError, RecipeError, DataError, TokenizerError, PlanError, TrainingError, GenerationError or
    RunFolderError.
    """
    tune_allocator()
    session = Session(progress, display, time.monotonic() if started is None else started)
    wish = Wish(base, data, method, minutes, None, steps, seed, threads, valid, test, overrides)
    recipe = wish.as_recipe(RewardRecipe, budget=_BUDGET, example=_EXAMPLE)
    out = out or free_folder(f"{Path(recipe.data.files[0]).name.split('.')[0]}-{Path(base).name.split('.')[0]}")
    require_empty(out)
    recipe, prepared = _prepare(recipe, progress)
    deadline = session.deadline(recipe.training.minutes)
    recipe, plan = _planned(recipe, prepared, None if deadline is None else deadline - time.monotonic())
    progress.say(
        f"{plan['steps']:,} steps of {recipe.training.batch_size} prompts with {recipe.reward.answers} answers each "
        f"({plan['train_problems']:,} problems), learning rate {recipe.learning_rate:g} ({recipe.tuning.kind})."
    )
    run = Run.create(
        out,
        recipe=recipe,
        plan=plan | {"recipe": recipe.to_json()},
        data={"sha256": prepared.sha256, **prepared.facts()},
        parent=base_record(prepared.base.folder),
    )
    run.header[TUNED_FOR] = "reward"
    run.write("planned")
    latest = None if deadline is None else deadline - plan["seconds_after"]
    return _Tuning(run, recipe, prepared, session).go(deadline=latest)


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> RewardTuned:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its base or problems have changed since.
    """
    tune_allocator()
    opened = open_interrupted(run, threads=threads)
    recipe = RewardRecipe.parse(opened.header["recipe"], where=str(opened.folder / "rung.json"))
    recipe, prepared = _prepare(recipe, progress)
    require_unchanged(opened, base=recipe.base, data_sha256=prepared.sha256, files=recipe.data.files)
    checkpoint = latest_good(opened.folder, progress.say)
    session = Session(progress, display, time.monotonic())
    return _Tuning(opened, recipe, prepared, session).go(deadline=None, checkpoint=checkpoint)


@dataclass(frozen=True)
class _Prepared:
    """The base, and problems to learn from, to choose by and to test on."""

    base: ChatBase
    train: Problems
    valid: Problems
    test: Problems

    @property
    def sha256(self) -> str:
        """The identity of what is learned and measured."""
        parts = (self.train.sha256, self.valid.sha256, self.test.sha256, self.base.tokenizer.sha256)
        return "+".join(part[:16] for part in parts)

    def facts(self) -> dict[str, Any]:
        """What the data come to."""
        return {f"{part}_problems": len(getattr(self, part)) for part in ("train", "valid", "test")}


def _prepare(recipe: RewardRecipe, progress: Progress) -> tuple[RewardRecipe, _Prepared]:
    """Read and split; and the recipe with the date it was done with. A prompt is never in two parts."""
    data = recipe.data
    recipe, base = dated(recipe, open_base(recipe.base, template=data.template))
    require_learnable(base, recipe.tuning)
    train = read_problems(data.files, progress=progress)
    if data.test:
        test = read_problems(data.test, progress=progress)
    else:
        train, test = split_problems(train, share=data.test_share, seed=recipe.seed)
    if data.valid:
        valid = read_problems(data.valid, progress=progress)
    else:
        train, valid = split_problems(train, share=data.valid_share, seed=recipe.seed)
    held_out = {one.prompt for one in (*valid.items, *test.items)}
    kept = np.array([row for row, one in enumerate(train.items) if one.prompt not in held_out], dtype=np.int64)
    return recipe, _Prepared(base, train.take(kept), valid, test)


def _planned(recipe: RewardRecipe, prepared: _Prepared, seconds: float | None) -> tuple[RewardRecipe, dict[str, Any]]:
    """Fill the gaps of `recipe`; with `seconds` for all that is left to do, by timing a step. PlanError: none fits."""
    training = recipe.training
    batch = min(training.batch_size or _BATCH_PROMPTS, len(prepared.train))
    recipe = recipe.with_overrides(
        {
            "training.batch_size": batch,
            "training.micro_batch_size": training.micro_batch_size or batch,
            "training.precision": training.precision or ("bf16" if has_bf16_instructions() else "fp32"),
            "training.learning_rate": recipe.learning_rate,
            "training.threads": training.threads or usable_cores(),
        }
    )
    net = tuned_network(prepared.base, recipe)
    steps, after = training.steps or 0, 0.0
    if seconds is not None:
        step = _seconds_of_step(recipe, prepared, net)
        greedy = _FORWARD_SHARE * step / (batch * recipe.reward.answers)
        after = 2 * greedy * len(prepared.test) + _FILES_SECONDS
        steps = int((seconds - after - _VALIDATIONS * greedy * len(prepared.valid)) / step)
        if steps < 1:
            raise PlanError(
                f"no step fits into {max(0.0, seconds):.0f} s: one takes {step:.1f} s, and measuring {after:.0f} s",
                hint="give more --minutes, or fewer problems to test on: --test FILE",
            )
    schedule = Schedule.warmup_flat_decay(
        steps,
        warmup=min(round(steps * training.warmup_share), steps - 1),
        decay_fraction=training.decay_share,
        final=training.final_learning_rate_fraction,
    )
    recipe = recipe.with_overrides(
        {
            "training.schedule": training.schedule or schedule.to_json(),
            "training.steps": steps,
            "training.minutes": None,
            "training.validate_every": training.validate_every or max(1, math.ceil(steps / _VALIDATIONS)),
        }
    )
    own = [parameter for name, parameter in net.named_parameters() if ".lora_" not in name]
    return recipe, {
        "parameters": sum(one.numel() for one in own),
        "trained_parameters": sum(one.numel() for one in net.parameters() if one.requires_grad),
        "steps": steps,
        "seconds_after": after,
        **prepared.facts(),
    }


def _seconds_of_step(recipe: RewardRecipe, prepared: _Prepared, net: Any) -> float:
    """Seconds of one step, sampling included. `net` is left as it was."""
    torch.set_num_threads(recipe.training.threads or usable_cores())
    net.compute_dtype = compute_dtype(recipe)
    batch = ProblemBatches(len(prepared.train), seed=recipe.seed).batch(np.arange(recipe.training.batch_size or 1))
    began = time.perf_counter()
    _rollouts(recipe, prepared)(net, batch).total.backward()  # type: ignore[no-untyped-call]
    net.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def _rollouts(recipe: RewardRecipe, prepared: _Prepared) -> Rollouts:
    """The objective. Where distance from the base has its price, the base is held beside the network."""
    reference = base_network(prepared.base, recipe).eval() if recipe.reward.beta else None
    return Rollouts(prepared.base, prepared.train, recipe.reward, recipe.seed, _precision(recipe), reference)


def _precision(recipe: RewardRecipe) -> Precision:
    return recipe.training.precision or "fp32"


class _Tuning:
    """Tunes a run by its recipe, measures it, and makes its folder a model: the same for new and resumed runs."""

    def __init__(self, run: Run, recipe: RewardRecipe, prepared: _Prepared, session: Session) -> None:
        """Take a run whose recipe has no gaps, and its problems."""
        self.run, self.recipe, self.prepared, self.session = run, recipe, prepared, session
        torch.set_num_threads(recipe.training.threads or usable_cores())

    def go(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> RewardTuned:
        """Tune from `checkpoint` or from the base until the schedule ends."""
        recipe, prepared = self.recipe, self.prepared
        net = tuned_network(prepared.base, recipe)

        def validate() -> Validation:
            solved, ended, _ = self._solved(net, prepared.valid, SILENT)
            # Of equally many right answers, more ended turns are better, and never outweigh a right answer.
            return Validation(
                1 - solved.mean - ended.mean / (2 * len(prepared.valid)), {"solved": solved.mean, "ended": ended.mean}
            )

        def save(folder: Path) -> None:
            save_chat_model(net, prepared.base, folder, method=recipe.tuning, record=self.run.header["parent"])

        job = Job(
            net=net,
            objective=_rollouts(recipe, prepared),
            batches=ProblemBatches(len(prepared.train), seed=recipe.seed),
            optimizer=optimizer_of(net, recipe),
            # The loss is near zero by construction, so nothing tells a spike.
            settings=replace(loop_settings(recipe), guard=GuardSettings(spike_threshold=None), log_every=1),
            save=save,
            load=lambda folder: load_trained(net, folder, recipe.tuning),
            validate=validate,
        )
        result, _ = run_loop(self.run, recipe, job, self.session, deadline=deadline, checkpoint=checkpoint)
        if result.ended == "interrupted":
            return self._summary(result)
        best = result.best_checkpoint or result.checkpoint
        if best != result.checkpoint:
            load_trained(net, best, recipe.tuning)
        return self._publish(net, best, result)

    def _solved(self, net: Any, problems: Problems, progress: Progress) -> tuple[ItemScores, ItemScores, list[str]]:
        return solved_shares(
            net, self.prepared.base, problems, self.recipe.reward, precision=_precision(self.recipe), progress=progress
        )

    def _publish(self, net: Any, best: Path, result: LoopResult) -> RewardTuned:
        """Measure the base and the best checkpoint on test problems, and make the run folder that model."""
        test, progress = self.prepared.test, self.session.progress
        before, _, _ = self._solved(base_network(self.prepared.base, self.recipe), test, progress)
        after, ended, answers = self._solved(net, test, progress)
        scores = {SOLVED: after, BEFORE: before, "turns_ended": ended}
        how = f"greedy answers of up to {self.recipe.reward.max_tokens} tokens"
        records = [
            Record(
                name=name,
                value=one.mean,
                unit="share",
                n=len(test),
                interval=wilson(int(one.values.sum()), len(test)),
                signature=how,
                data_sha256=test.sha256,
            )
            for name, one in scores.items()
        ]
        records.append(compare(after, before, name=SOLVED, unit="share"))
        shown = tuple(zip((one.prompt for one in test.items[:3]), answers, strict=False))
        summary = replace(self._summary(result), records=tuple(records), answers=shown, seconds=self.session.seconds)
        recipe = RewardRecipe.parse(self.run.header["recipe"])
        self.run.publish(best, card=card(self.run, recipe, summary), records=records, scores=scores)
        return summary

    def _summary(self, result: LoopResult) -> RewardTuned:
        made = self.run.header["plan"]
        answers = result.step * (self.recipe.training.batch_size or 1) * self.recipe.reward.answers
        return RewardTuned(
            run=self.run.folder,
            ended=result.ended,
            steps=result.step,
            parameters=made["parameters"],
            trained=made["trained_parameters"],
            seconds=self.session.seconds,
            answers_per_second=answers / result.seconds if result.seconds else 0.0,
            plan=made,
            skipped=result.skipped,
        )
