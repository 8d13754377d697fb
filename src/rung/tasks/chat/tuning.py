"""A base and conversations in, a model to talk with out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rung.data.packing import HeldOutRows, TrainingRows
from rung.evaluation.intervals import compare
from rung.generation.engine import Engine
from rung.nets.decoder import CausalLM
from rung.objectives.answers import AnswerTokens
from rung.records import ItemScores
from rung.tasks.chat.measuring import (
    ANSWER_LOSS,
    Answer,
    answer_losses,
    answer_prompts,
    answer_records,
    loss_record,
)
from rung.tasks.chat.preflight import preflight
from rung.tasks.chat.preparation import prepare
from rung.tasks.chat.tuning_base import ChatModelTuning, tuned_network
from rung.tasks.chat.tuning_plan import ChatPlan, facts_of, make_plan
from rung.tasks.chat.tuning_recipe import PLACES, ChatRecipe
from rung.tasks.chat.tuning_summary import BEFORE, ChatTuned
from rung.tasks.run import Run
from rung.tasks.tuning.frame import Job, Session
from rung.tasks.tuning.tuner import Outcome, Tuner
from rung.training.contracts import Validation

_SHOWN_ANSWERS = 3


class ChatTuning(ChatModelTuning[ChatRecipe, ChatTuned]):
    """Tunes a decoder to answer as the assistant does in conversations (see `rung.data.conversations`).

    5 % are split off to choose the checkpoint and 10 % to test on. The base's own chat template is used, or ChatML
    where it has none. Only the assistant's words and ends of turns are learned.
    """

    summary = ChatTuned

    def __init__(self, recipe: ChatRecipe, session: Session) -> None:
        """Open the base, then read the conversations as rows."""
        recipe, self.prepared = prepare(recipe, session.progress)
        super().__init__(recipe, session, self.prepared.base)

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        return {"sha256": self.prepared.sha256, **facts_of(self.prepared)}

    def plan(self, seconds: float | None) -> ChatPlan:
        """Fill the gaps of the recipe, after three examples of what will be learned."""
        net = tuned_network(self.base, self.recipe)  # first: it refuses targets of LoRA that are not there
        for example in preflight(self.prepared.rows["train"].examples, self.base.tokenizer):
            self.session.progress.say(example)
        return make_plan(self.recipe, self.prepared, net, seconds=seconds)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which the rows are read once."""
        return len(self.prepared.rows["train"]) / self.recipe.training.rows

    def job(self, run: Run) -> Job:
        """The network, trained on the assistant's tokens."""
        batches = TrainingRows(self.prepared.rows["train"], seed=self.recipe.seed)
        return self.job_of(run, AnswerTokens(), batches, self._validate)

    def _validate(self) -> Validation:
        held_out = HeldOutRows(self.prepared.rows["valid"])
        loss = self.losses(AnswerTokens(), held_out, len(held_out))["loss"]
        return Validation(loss, {"loss": loss})

    def measure(self, weights: Path) -> Outcome:  # noqa: ARG002 - the network has them
        """Measure the base and the tuned network on test conversations, and let the latter answer some."""
        before = self._measured(self.untuned(), "measuring the base")
        after = self._measured(self.net, "measuring the tuned model")
        sha256 = self.prepared.split.test.sha256
        records = [
            loss_record(after, data_sha256=sha256),
            loss_record(before, data_sha256=sha256, name=BEFORE),
            compare(after, before, name=ANSWER_LOSS, unit="nats/token"),
        ]
        scores = {ANSWER_LOSS: after, BEFORE: before}
        if answers := self._answers():
            most = self.recipe.measuring.max_tokens
            more, by_answer = answer_records(answers, data_sha256=sha256, max_tokens=most)
            records, scores = records + more, scores | by_answer
        return Outcome(records, scores, {"answers": tuple(answers[:_SHOWN_ANSWERS])})

    def _measured(self, net: CausalLM, label: str) -> ItemScores:
        return answer_losses(
            net,
            self.prepared.rows["test"],
            [item.id for item in self.prepared.kept("test").items],
            batch_size=self.recipe.training.rows_at_once,
            progress=self.session.progress,
            label=label,
        )

    def _answers(self) -> list[Answer]:
        base, measuring = self.base, self.recipe.measuring
        asked = self.prepared.kept("test").items[: measuring.prompts]
        if not asked:
            return []
        return answer_prompts(
            Engine(self.net, base.tokenizer, precision=self.recipe.training.precision or "fp32"),
            base.template,
            base.tokenizer,
            asked,
            end_of_turn=base.end_of_turn,
            max_tokens=measuring.max_tokens,
            progress=self.session.progress,
        )


TUNER = Tuner(
    recipe=ChatRecipe,
    open=ChatTuning,
    items="conversations",
    example="rung tune smollm2 talks.jsonl --task chat",
    budget={"training.epochs": 2.0},
    places=PLACES,
)
