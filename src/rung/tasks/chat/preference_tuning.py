"""A chat model and pairs of answers in, a model that prefers the better ones out (DPO)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.chat_template import RenderedTokens
from rung.data.conversation_split import PARTS
from rung.data.packing import PackedRows, TokenExamples
from rung.data.preference_rows import PairBatches
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.nets.decoder import CausalLM
from rung.records import ItemScores
from rung.tasks.chat.measuring import answer_losses
from rung.tasks.chat.preference_data import batches, keep_reference, kept_reference, pair_scores, prepare_pairs
from rung.tasks.chat.preference_plan import PreferencePlan, make_plan
from rung.tasks.chat.preference_recipe import PreferenceRecipe
from rung.tasks.chat.preference_summary import PreferenceTuned, preference_records
from rung.tasks.chat.tuning_base import ChatModelTuning, tuned_network
from rung.tasks.chat.tuning_recipe import PLACES
from rung.tasks.run import Run
from rung.tasks.tuning.frame import Job, Session
from rung.tasks.tuning.tuner import Outcome, Tuner
from rung.training.contracts import Validation

Scores = dict[str, NDArray[np.float64]]
_WRITTEN_AT_ONCE = 16


class PreferenceTuning(ChatModelTuning[PreferenceRecipe, PreferenceTuned]):
    """Makes a chat model prefer the better answers of pairs (see `rung.data.preferences`).

    5 % are split off to choose the checkpoint and 10 % to test on. The base itself is the reference: what it gives each
    answer is computed once and kept. `--set preference.length_normalised=false` compares sums over tokens, not means.
    """

    summary = PreferenceTuned

    def __init__(self, recipe: PreferenceRecipe, session: Session) -> None:
        """Open the base, then read the pairs as rows."""
        recipe, self.prepared = prepare_pairs(recipe, session.progress)
        super().__init__(recipe, session, self.prepared.base)

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        return {"sha256": self.prepared.sha256, **self.prepared.facts()}

    def plan(self, seconds: float | None) -> PreferencePlan:
        """Fill the gaps of the recipe."""
        return make_plan(self.recipe, self.prepared, tuned_network(self.base, self.recipe), seconds=seconds)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which the pairs are read once."""
        return len(self.prepared.rows("train")) / self.recipe.training.rows

    def job(self, run: Run) -> Job:
        """The network, trained on pairs beside what the reference gives them."""
        self.reference = self._reference(run)
        held_out = batches(self.prepared, self.reference, "valid", None)

        def validate() -> Validation:
            found = self.losses(self.recipe.objective, held_out, len(held_out))
            return Validation(found["loss"], found)

        train = batches(self.prepared, self.reference, "train", self.recipe.seed)
        return replace(self.job_of(run, self.recipe.objective, train, validate), unit="pairs")

    def _reference(self, run: Run) -> Scores:
        """What the base gives the answers of pairs: computed once a run, and kept in its folder.

        Of the training pairs, those that the schedule will read; all where a clock may lengthen it.
        """
        parent, training = run.header["parent"]["weights_sha256"], self.recipe.training
        identity = f"{parent} {self.prepared.sha256} {training.precision}"
        kept = kept_reference(run.folder, identity)
        if kept is not None:
            return kept
        net = self.untuned()
        numbers = {part: np.arange(len(self.prepared.rows(part))) for part in PARTS}
        if training.minutes is None:
            order = PairBatches(self.prepared.rows("train"), np.empty((0, 2)), seed=self.recipe.seed)
            numbers["train"] = np.unique(order.locate(np.arange((training.steps or 0) * training.rows)))
        found = {part: self._scores(net, part, numbers[part], f"scoring {part} pairs by the base") for part in PARTS}
        keep_reference(run.folder, found, identity)
        return found

    def _scores(self, net: CausalLM, part: str, numbers: NDArray[np.int64], label: str) -> NDArray[np.float64]:
        return pair_scores(
            net,
            self.prepared.rows(part),
            numbers,
            batch_size=self.recipe.training.rows_at_once,
            progress=self.session.progress,
            label=label,
        )

    def measure(self, weights: Path) -> Outcome:  # noqa: ARG002 - the network has them
        """Measure base and tuned network on test pairs."""
        pairs = self.prepared.kept("test")
        return Outcome(
            *preference_records(
                [pair.id for pair in pairs],
                base=self.reference["test"],
                tuned=self._scores(self.net, "test", np.arange(len(pairs)), "scoring test pairs"),
                tokens=self.prepared.rows("test").answer_tokens,
                objective=self.recipe.objective,
                drift=self._drift(),
                data_sha256=self.prepared.split.test.sha256,
            )
        )

    def _drift(self) -> ItemScores | None:
        """ln P(answer) under the tuned network less that under the base, for an answer sampled to each of some prompts.

        Its mean estimates the Kullback-Leibler divergence of answers from the reference (Monte Carlo).
        """
        base, measuring, training = self.base, self.recipe.measuring, self.recipe.training
        asked = self.prepared.kept("test")[: measuring.prompts]
        if not asked:
            return None
        engine = Engine(self.net, base.tokenizer, precision=training.precision or "fp32")
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
            answer_losses(one, rows, ids, batch_size=training.rows_at_once, progress=self.session.progress)
            for one in (self.untuned(), self.net)
        ]
        return ItemScores(ids, losses[0].values - losses[1].values, np.ones(len(ids)))


TUNER = Tuner(
    recipe=PreferenceRecipe,
    open=PreferenceTuning,
    items="pairs",
    example="rung tune runs/my_chat pairs.jsonl --task prefer",
    budget={"training.epochs": 2.0},
    places=PLACES,
)
