"""What is told about a chat model in the end: to who tuned it, and on its card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rung.tasks.chat.measuring import ANSWER_LOSS, Answer
from rung.tasks.chat.tuning_recipe import ChatRecipe
from rung.tasks.run import Run
from rung.tasks.tuning.card import TunedCard, parts_in_words
from rung.tasks.tuning.summary import Tuned

BEFORE = f"{ANSWER_LOSS}_before"
GAIN = f"difference in {ANSWER_LOSS}"


@dataclass(frozen=True)
class ChatTuned(Tuned[ChatRecipe]):
    """How tuning to chat went. `answers`: to some test prompts."""

    items = "conversations"
    unit = "learned tokens"
    next_commands = ("rung chat {run}",)

    answers: tuple[Answer, ...] = ()

    def shown(self) -> list[str]:
        """Some answers."""
        lines = []
        for one in self.answers:
            asked = one.conversation.prompt[-1].content
            lines += ["", f"  {asked}", f"  -> {one.text}{'' if one.ended else ' ...'}"]
        return lines

    def further(self) -> dict[str, Any]:
        """Some answers."""
        told = [(one.conversation.prompt[-1].content, one.text, one.ended) for one in self.answers]
        return {"answers": [{"prompt": asked, "answer": text, "ended": ended} for asked, text, ended in told]}

    def card(self, run: Run, recipe: ChatRecipe) -> str:
        """The model card of a finished run."""
        data, training = run.header["data"], recipe.training
        remarks = [
            "no prompt of one part is like one of another",
            f"only the assistant's words were learned: {data['train_targets']:,} tokens",
        ]
        return TunedCard(
            pipeline_tag="text-generation",
            tags=("rung", "chat"),
            about="tuned on conversations: a model to talk with",
            data=parts_in_words(data, self.items, remarks=remarks, key="{}_conversations"),
            steps=f"{training.batch_size} rows of {training.context_length} tokens, {training.optimizer}",
            limits="It answers in the manner of the conversations it was tuned on and invents what it does not know.",
        ).text(run, recipe, self)
