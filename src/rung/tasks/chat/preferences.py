"""A chat model and pairs of answers in, a model that prefers the better ones out: `tune`, `plan`, `resume` (DPO)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rung.data.chat_template import RenderedTokens
from rung.data.conversation_split import PARTS
from rung.data.packing import PackedRows, TokenExamples
from rung.data.preference_rows import PairBatches
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.nets.decoder import CausalLM
from rung.progress import SILENT, Progress
from rung.records import ItemScores
from rung.tasks.bases import base_record
from rung.tasks.chat.folder import save_chat_model
from rung.tasks.chat.measuring import answer_losses
from rung.tasks.chat.plan import loop_settings, optimizer_of
from rung.tasks.chat.preference_data import (
    PreparedPairs,
    batches,
    keep_reference,
    kept_reference,
    pair_scores,
    prepare_pairs,
)
from rung.tasks.chat.preference_plan import PreferencePlan, make_plan
from rung.tasks.chat.preference_recipe import PreferenceRecipe
from rung.tasks.chat.preference_summary import PreferenceTuned, card, preference_records
from rung.tasks.chat.recipe import Wish
from rung.tasks.chat.tuning import base_network, load_trained, tuned_network
from rung.tasks.run import Run, free_folder, require_empty
from rung.tasks.tuning.frame import Job, Session, open_interrupted, require_unchanged, run_loop
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import TUNED_FOR
from rung.training.checkpoint import Checkpoint, latest_good
from rung.training.contracts import LoopResult, Validation
from rung.training.distributed import alone
from rung.training.machine import usable_cores
from rung.training.meter import SILENT_DISPLAY, Display
from rung.training.precision import tune_allocator
from rung.training.validation import mean_loss

Files = Sequence[str | Path]
_BUDGET = {"training.epochs": 1.0}
_EXAMPLE = "rung tune runs/my_chat pairs.jsonl --task prefer"
Scores = dict[str, NDArray[np.float64]]
_WRITTEN_AT_ONCE = 16


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
) -> PreferenceTuned:
    """Make the chat model `base` prefer the better answers of the pairs `data`, and leave a run folder (DPO).

    `data` are pairs (see `rung.data.preferences`); 5 % are split off to choose the checkpoint and 10 % to test on,
    unless `valid` and `test` bring them. `base` itself is the reference: what it gives each answer is computed once and
    kept. `--set preference.length_normalised=true` compares means over tokens instead of sums. `method` (default: full;
    or LoRA) says which weights move. `minutes` is the wall time of it all, counted from `started`; `epochs` (default:
    1) or `steps` read no clock.

    Raises UsageError, RecipeError, DataError, TokenizerError, PlanError, TrainingError or RunFolderError.
    """
    session = _session(progress, display, started)
    wish = Wish(base, data, method, minutes, epochs, steps, seed, threads, valid, test, overrides)
    recipe = wish.as_recipe(PreferenceRecipe, budget=_BUDGET, example=_EXAMPLE)
    out = out or free_folder(f"{Path(recipe.data.files[0]).name.split('.')[0]}-{Path(base).name.split('.')[0]}")
    require_empty(out)
    deadline = session.deadline(recipe.training.minutes)
    made, prepared = _planned(recipe, progress, deadline)
    run = Run.create(
        out,
        recipe=made.recipe,
        plan=made.to_json(),
        data={"sha256": prepared.sha256, **made.facts},
        parent=base_record(prepared.base.folder),
    )
    run.header[TUNED_FOR] = "prefer"
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
) -> PreferencePlan:
    """Do all that `tune` does before tuning, and return what it would do. Arguments and errors as in `tune`."""
    session = _session(progress, SILENT_DISPLAY, started)
    wish = Wish(base, data, method, minutes, epochs, steps, seed, threads, valid, test, overrides)
    recipe = wish.as_recipe(PreferenceRecipe, budget=_BUDGET, example=_EXAMPLE)
    return _planned(recipe, progress, session.deadline(recipe.training.minutes))[0]


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> PreferenceTuned:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its base or pairs have changed since.
    """
    opened = open_interrupted(run, threads=threads)
    recipe = PreferenceRecipe.parse(opened.header["recipe"], where=str(opened.folder / "rung.json"))
    session = _session(progress, display, None)
    recipe, prepared = prepare_pairs(recipe, progress)
    require_unchanged(opened, base=recipe.base, data_sha256=prepared.sha256, files=recipe.data.files)
    checkpoint = latest_good(opened.folder, progress.say)
    return _Tuning(opened, recipe, prepared, session).go(deadline=None, checkpoint=checkpoint)


def _session(progress: Progress, display: Display, started: float | None) -> Session:
    tune_allocator()
    return Session(progress, display, time.monotonic() if started is None else started)


def _planned(
    recipe: PreferenceRecipe, progress: Progress, deadline: float | None
) -> tuple[PreferencePlan, PreparedPairs]:
    """The plan, told to whoever listens."""
    recipe, prepared = prepare_pairs(recipe, progress)
    net = tuned_network(prepared.base, recipe)
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    made = make_plan(recipe, prepared, net, seconds=left)
    for line in made.lines():
        progress.say(line)
    return made, prepared


class _Tuning:
    """Tunes a run by its recipe, measures it, and makes its folder a model: the same for new and resumed runs."""

    def __init__(self, run: Run, recipe: PreferenceRecipe, prepared: PreparedPairs, session: Session) -> None:
        """Take a run whose recipe has no gaps, and its pairs as rows."""
        self.run, self.recipe, self.prepared, self.session = run, recipe, prepared, session
        torch.set_num_threads(recipe.training.threads or usable_cores())

    def go(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> PreferenceTuned:
        """Tune from `checkpoint` or from the base until the schedule ends."""
        recipe, prepared = self.recipe, self.prepared
        reference = self._reference(every_pair=deadline is not None)
        net = tuned_network(prepared.base, recipe)
        objective = recipe.objective
        held_out = batches(prepared, reference, "valid", None)

        def validate() -> Validation:
            found = mean_loss(
                net,
                objective,
                held_out,
                samples=len(held_out),
                batch_size=recipe.training.micro_batch_size or 1,
                world=alone(next(net.parameters()).device),
            )
            return Validation(found["loss"], found)

        def save(folder: Path) -> None:
            save_chat_model(net, prepared.base, folder, method=recipe.tuning, record=self.run.header["parent"])

        job = Job(
            net=net,
            objective=objective,
            batches=batches(prepared, reference, "train", recipe.seed),
            optimizer=optimizer_of(net, recipe),
            settings=loop_settings(recipe),
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
        return self._publish(net, best, result, reference["test"])

    def _reference(self, *, every_pair: bool) -> Scores:
        """What the base gives the answers of pairs: computed once a run, and kept in its folder.

        Of the training pairs, those that the schedule will read; `every_pair` where a clock may lengthen it.
        """
        parent = self.run.header["parent"]["weights_sha256"]
        identity = f"{parent} {self.prepared.sha256} {self.recipe.training.precision}"
        kept = kept_reference(self.run.folder, identity)
        if kept is not None:
            return kept
        net = base_network(self.prepared.base, self.recipe)
        numbers = {part: np.arange(len(self.prepared.rows(part))) for part in PARTS}
        if not every_pair:
            samples = np.arange((self.recipe.training.steps or 0) * (self.recipe.training.batch_size or 1))
            order = PairBatches(self.prepared.rows("train"), np.empty((0, 2)), seed=self.recipe.seed)
            numbers["train"] = np.unique(order.locate(samples))
        found = {part: self._scores(net, part, numbers[part], f"scoring {part} pairs by the base") for part in PARTS}
        keep_reference(self.run.folder, found, identity)
        return found

    def _scores(self, net: CausalLM, part: str, numbers: NDArray[np.int64], label: str) -> NDArray[np.float64]:
        return pair_scores(
            net,
            self.prepared.rows(part),
            numbers,
            batch_size=self.recipe.training.micro_batch_size or 1,
            progress=self.session.progress,
            label=label,
        )

    def _publish(
        self, net: CausalLM, best: Path, result: LoopResult, reference: NDArray[np.float64]
    ) -> PreferenceTuned:
        """Measure the best checkpoint on test pairs, and make the run folder that model."""
        pairs = self.prepared.kept("test")
        records, scores = preference_records(
            [pair.id for pair in pairs],
            base=reference,
            tuned=self._scores(net, "test", np.arange(len(pairs)), "scoring test pairs"),
            tokens=self.prepared.rows("test").answer_tokens,
            objective=self.recipe.objective,
            drift=self._drift(net),
            data_sha256=self.prepared.split.test.sha256,
        )
        summary = replace(self._summary(result), records=tuple(records), seconds=self.session.seconds)
        recipe = PreferenceRecipe.parse(self.run.header["recipe"])
        self.run.publish(best, card=card(self.run, recipe, summary), records=records, scores=scores)
        return summary

    def _drift(self, net: CausalLM) -> ItemScores | None:
        """ln P(answer) under `net` less that under the base, for one sampled answer to each of some test prompts.

        Its mean estimates the Kullback-Leibler divergence of answers from the reference (Monte Carlo).
        """
        base, measuring, recipe = self.prepared.base, self.recipe.measuring, self.recipe
        asked = self.prepared.kept("test")[: measuring.prompts]
        if not asked:
            return None
        net.eval()
        engine = Engine(net, base.tokenizer, precision=recipe.training.precision or "fp32")
        written: list[RenderedTokens] = []
        with self.session.progress.task("sampling answers", len(asked), "answers") as advance:
            for start in range(0, len(asked), _WRITTEN_AT_ONCE):
                some = asked[start : start + _WRITTEN_AT_ONCE]
                prompts = [base.template.render_prompt(one.prompt, base.tokenizer) for one in some]
                options = [
                    SamplingOptions(
                        max_tokens=measuring.max_tokens, seed=start + place, stop_tokens=(base.end_of_turn,)
                    )
                    for place in range(len(some))
                ]
                for prompt, answer in zip(prompts, engine.generate(prompts, options), strict=True):
                    judged = [False] * len(prompt) + [True] * len(answer.token_ids)
                    written.append(RenderedTokens([*prompt, *answer.token_ids], judged))
                advance(len(some))
        examples = TokenExamples.of(written)
        longest = int(examples.lengths.max()) - 1
        rows = PackedRows(examples, context_length=longest, pad_token_id=base.tokenizer.eos_token_id)
        ids = [one.id for one in asked]
        losses = [
            answer_losses(
                one, rows, ids, batch_size=recipe.training.micro_batch_size or 1, progress=self.session.progress
            )
            for one in (base_network(base, recipe), net)
        ]
        return ItemScores(ids, losses[0].values - losses[1].values, np.ones(len(ids)))

    def _summary(self, result: LoopResult) -> PreferenceTuned:
        made = self.run.header["plan"]
        pairs = result.step * (self.recipe.training.batch_size or 1)
        return PreferenceTuned(
            run=self.run.folder,
            ended=result.ended,
            steps=result.step,
            epochs=pairs / made["train_pairs"],
            parameters=made["parameters"],
            trained=made["trained_parameters"],
            seconds=self.session.seconds,
            pairs_per_second=pairs / result.seconds if result.seconds else 0.0,
            plan=made,
            skipped=result.skipped,
        )
