"""The model card of a tuned run: `README.md` with Hugging Face metadata, alike for all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.tasks.card_parts import adapter_words, front_matter, hub_name, record_table
from rung.tasks.run import Run
from rung.tasks.tuning.recipe import TuningRecipe
from rung.tasks.tuning.summary import Tuned


@dataclass(frozen=True, kw_only=True)
class TunedCard:
    """What one task has to say on its card.

    library       what opens the folder, where that is not peft for LoRA and transformers else
    about         what the base was tuned to do, after its name
    data          how much there was, and what was left out
    steps         of what size steps were; where none was taken, `solved` says what was done instead
    limits        what not to expect
    adapter       who opens it where LoRA has tuned it
    use, measured, trained, further    what is added to a part of the card, and at its end
    """

    pipeline_tag: str
    about: str
    data: str
    steps: str
    limits: str
    library: str | None = None
    tags: Sequence[str] = ("rung",)
    adapter: str = ""
    use: str = ""
    measured: str = ""
    solved: str = ""
    trained: str = ""
    further: str = ""
    digits: int = 4

    def text(self, run: Run, recipe: TuningRecipe, summary: Tuned[Any]) -> str:
        """The card of the finished `run`."""
        parent, data = run.header["parent"], run.header["data"]
        is_adapter = recipe.tuning.kind == "lora" and not summary.merged
        head = front_matter(
            library_name=self.library or ("peft" if is_adapter else "transformers"),
            base_model=hub_name(parent),
            license=None if parent["licence"] == "unknown" else parent["licence"],
            pipeline_tag=self.pipeline_tag,
            tags=self.tags,
        )
        commands = "\n".join(command.format(run=run.folder) for command in summary.next_commands)
        parts = {
            "": _joined(
                f"{parent['name']} ({parent['architecture']}), {self.about}.",
                adapter_words(parent, run.folder, self.adapter) if is_adapter else "",
            ),
            "Use": _joined(f"```\n{commands}\n```", self.use),
            f"Measured on test {summary.items}": _joined(
                record_table(summary.records, items=summary.items, digits=self.digits), self.measured
            ),
            "Data": _joined(self.data, f"SHA-256: `{data['sha256']}`."),
            "Training": _joined(self._training(parent, recipe, summary), self.trained),
            "Limits": f"{self.limits}\nWhat the base has picked up from its own training text is still there and is "
            "not examined here.\nBias, privacy and safety: not measured.",
        }
        titled = [f"## {title}\n\n{text}" if title else text for title, text in parts.items()]
        return _joined(head, f"# {run.folder.name}", *titled, self.further) + "\n"

    def _training(self, parent: dict[str, Any], recipe: TuningRecipe, summary: Tuned[Any]) -> str:
        how = (
            f"{summary.steps:,} steps of {self.steps} ({summary.epochs:.2f} readings), learning rate "
            f"{recipe.learning_rate:g}, {recipe.training.precision}, seed {recipe.seed}.\n"
            f"Steps refused by the guards: {sum(summary.skipped.values())}."
            if summary.steps
            else self.solved
        )
        return (
            f"Base: {parent['name']} from `{parent['origin']}`, licence {parent['licence']}, SHA-256 of its weights\n"
            f"`{parent['weights_sha256']}`.\n"
            f"{recipe.tuning.in_words()}; {summary.trained:,} of {summary.parameters:,} parameters trained.\n"
            f"{how} Ended: {summary.ended}. Energy: not measured."
        )


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def parts_in_words(data: Mapping[str, Any], items: str, *, remarks: Sequence[str], key: str = "{}") -> str:
    """How many `items` the parts have, by a run's record of its data, and what was left out of them.

    `key` makes the record's key of a part's name.
    """
    train, valid, test = (data[key.format(part)] for part in ("train", "valid", "test"))
    told = "\n".join(f"- {remark}" for remark in remarks) or "- nothing was left out"
    return f"{train:,} {items} to tune on, {valid:,} to choose weights by, {test:,} to measure on.\n\n{told}"
