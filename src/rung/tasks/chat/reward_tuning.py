"""A chat model and problems whose answers can be checked in, a model that learned by trying out (GRPO)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rung.data.checkable import Problems
from rung.evaluation.intervals import compare
from rung.evaluation.proportions import wilson
from rung.nets.decoder import CausalLM
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.tasks.chat.reward_data import prepare_problems
from rung.tasks.chat.reward_plan import RewardPlan, make_plan, rollouts
from rung.tasks.chat.reward_recipe import RewardRecipe
from rung.tasks.chat.reward_summary import BEFORE, SOLVED, RewardTuned
from rung.tasks.chat.rollouts import ProblemBatches, solved_shares
from rung.tasks.chat.tuning_base import ChatModelTuning, tuned_network
from rung.tasks.chat.tuning_recipe import PLACES
from rung.tasks.run import Run
from rung.tasks.tuning.frame import Job, Session
from rung.tasks.tuning.tuner import Outcome, Tuner
from rung.training.contracts import Validation
from rung.training.guards import GuardSettings

_SHOWN_ANSWERS = 3


class RewardTuning(ChatModelTuning[RewardRecipe, RewardTuned]):
    """Lets a chat model try problems (see `rung.data.checkable`) and learn from what was right.

    5 % are split off to choose the checkpoint and 10 % to test on. In each step `reward.answers` answers are sampled to
    each of some prompts; an answer earns 1 by being right and `reward.ended` by ending its turn.
    """

    summary = RewardTuned

    def __init__(self, recipe: RewardRecipe, session: Session) -> None:
        """Open the base, then read the problems."""
        recipe, self.prepared = prepare_problems(recipe, session.progress)
        super().__init__(recipe, session, self.prepared.base)

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        return {"sha256": self.prepared.sha256, **self.prepared.facts()}

    def plan(self, seconds: float | None) -> RewardPlan:
        """Fill the gaps of the recipe."""
        return make_plan(self.recipe, self.prepared, tuned_network(self.base, self.recipe), seconds=seconds)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which the problems are tried once."""
        return len(self.prepared.train) / self.recipe.training.rows

    def job(self, run: Run) -> Job:
        """The network, trained on its own answers."""
        batches = ProblemBatches(len(self.prepared.train), seed=self.recipe.seed)
        job = self.job_of(run, rollouts(self.recipe, self.prepared), batches, self._validate)
        # The loss is near zero by construction, so nothing tells a spike.
        settings = replace(job.settings, guard=GuardSettings(spike_threshold=None), log_every=1)
        return replace(job, settings=settings, unit="answers")

    def _validate(self) -> Validation:
        solved, ended, _ = self._solved(self.net, self.prepared.valid, SILENT)
        # Of equally many right answers, more ended turns are better, and never outweigh a right answer.
        criterion = 1 - solved.mean - ended.mean / (2 * len(self.prepared.valid))
        return Validation(criterion, {"solved": solved.mean, "ended": ended.mean})

    def _solved(
        self, net: CausalLM, problems: Problems, progress: Progress
    ) -> tuple[ItemScores, ItemScores, list[str]]:
        precision = self.recipe.training.precision or "fp32"
        return solved_shares(net, self.base, problems, self.recipe.reward, precision=precision, progress=progress)

    def measure(self, weights: Path) -> Outcome:  # noqa: ARG002 - the network has them
        """Let the base and the tuned network answer the test problems."""
        test, progress = self.prepared.test, self.session.progress
        before, _, _ = self._solved(self.untuned(), test, progress)
        after, ended, answers = self._solved(self.net, test, progress)
        scores = {SOLVED: after, BEFORE: before, "turns_ended": ended}
        records = [
            Record(
                name=name,
                value=one.mean,
                unit="share",
                n=len(test),
                interval=wilson(int(one.values.sum()), len(test)),
                signature=f"greedy answers of up to {self.recipe.reward.max_tokens} tokens",
                data_sha256=test.sha256,
            )
            for name, one in scores.items()
        ]
        records.append(compare(after, before, name=SOLVED, unit="share"))
        shown = zip((one.prompt for one in test.items[:_SHOWN_ANSWERS]), answers, strict=False)
        return Outcome(records, scores, {"answers": tuple(shown)})


TUNER = Tuner(
    recipe=RewardRecipe,
    open=RewardTuning,
    items="problems",
    example="rung tune smollm2 problems.jsonl --task reward",
    budget={"training.steps": 50},
    places=PLACES,
)
