"""What is told in the end, to who tuned: what the summaries of all tasks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic

from rung.records import Record
from rung.tasks.run import Run
from rung.tasks.tuning.recipe import AnyTuningRecipe


@dataclass(frozen=True)
class Tuned(ABC, Generic[AnyTuningRecipe]):
    """How tuning went. `records` are measured on test items that played no part; empty after an interruption.

    `epochs`: readings of the training data. `speed`: `unit` a second. `skipped`: steps that the guards refused, by why.
    `base_note`: what to know of the base of an adapter.
    """

    items: ClassVar[str]
    """What the data are made of, in the plural."""
    unit: ClassVar[str]
    """What `speed` counts, in the plural."""
    next_commands: ClassVar[Sequence[str]]
    """What one would type next; `{run}` stands for the run folder."""
    merged: ClassVar[bool] = False
    """Whether what LoRA has learned is merged into the base, so that the run is a whole model all the same."""

    run: Path
    ended: str
    steps: int
    epochs: float
    parameters: int
    trained: int
    seconds: float
    speed: float
    plan: Mapping[str, Any]
    records: tuple[Record, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    base_note: str = ""

    def record(self, name: str) -> Record:
        """One of the measurements. KeyError where it was not made."""
        return {one.name: one for one in self.records}[name]

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        speed = f"{self.speed:,.1f}" if self.speed < 100 else f"{self.speed:,.0f}"
        rate = f", {self.epochs:.3g} times over the {self.items} at {speed} {self.unit}/s" if self.steps else ""
        trained = f"{self.trained:,} of {self.parameters:,} parameters trained"
        first = f"{trained}, {self.steps:,} steps{rate}; {self.seconds:,.0f} s in all: {self.ended}."
        remarks = [*self.base_note.splitlines(), *self.remarks_told()]
        if not self.records:
            return [first, *remarks]
        measured = [f"On test {self.items} that played no part in training:", *(f"  {one}" for one in self.told())]
        following = [command.format(run=self.run) for command in self.next_commands]
        what_next = [f"{'Next:' if number == 0 else '     '} {one}" for number, one in enumerate(following)]
        return [first, *remarks, "", *measured, *self.shown(), "", *what_next]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.run),
            "ended": self.ended,
            "steps": self.steps,
            "epochs": round(self.epochs, 3),
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "seconds": round(self.seconds, 2),
            f"{self.unit.split()[-1]}_per_second": round(self.speed, 2),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            **({"base_note": self.base_note} if self.base_note else {}),
            **self.further(),
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }

    def told(self) -> Sequence[Record]:
        """The measurements that people are told; the others stand in the run folder."""
        return self.records

    def remarks_told(self) -> Sequence[str]:
        """What is to be said about tuning itself."""
        return ()

    def shown(self) -> Sequence[str]:
        """Lines to look at beside the measurements, such as answers; each part begins with an empty one."""
        return ()

    def further(self) -> Mapping[str, Any]:
        """What `to_json` has for this task alone."""
        return {}

    @abstractmethod
    def card(self, run: Run, recipe: AnyTuningRecipe) -> str:
        """The model card of the finished `run`, by its recipe."""
