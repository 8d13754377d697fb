"""What a run wrote down while it trained, read back from `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import RunFolderError
from rung.runfolder import read_header

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Reach:
    """How far back the gradient reached at one step: see `rung.training.gradient_reach`."""

    steps: int
    longest: int
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Signs:
    """The vital signs of one step: layer -> name of a statistic -> value."""

    step: int
    layers: dict[str, dict[str, float]]
    reach: Reach | None


@dataclass(frozen=True)
class Learning:
    """One run. `steps` are the log's lines of training; `validations` (step, criterion or the unit of `unit`).

    `unit` is "bits_per_byte" where the run knows the bytes of its text, else "loss" (nats per target).
    `learning_rate` is the highest, None where the folder does not tell it: only the schedule's factor is known then.
    """

    name: str
    folder: Path
    steps: tuple[dict[str, float], ...]
    validations: tuple[tuple[int, float], ...]
    signs: tuple[Signs, ...]
    unit: str
    learning_rate: float | None
    optimizer: str | None

    @property
    def layers(self) -> list[str]:
        """The layers' names in order."""
        return list(dict.fromkeys(name for signs in self.signs for name in signs.layers))

    def series(self, layer: str, statistic: str) -> list[tuple[int, float]]:
        """(step, value) of one statistic of a layer, where it was found."""
        found = [(signs.step, signs.layers.get(layer, {}).get(statistic)) for signs in self.signs]
        return [(step, value) for step, value in found if value is not None]

    def reaches_while_learning(self) -> list[Reach]:
        """Those of looks, but the first, at a loss above half of the first one; all but the first where none is.

        Random weights say nothing of what is learned, and the state of a network that has solved its task depends on
        little.
        """
        first = self.steps[0]["loss"]
        losses = {line["step"]: line["loss"] for line in self.steps}
        later = self.reaches()[1:] or self.reaches()
        unsolved = [
            (step, reach)
            for step, reach in later
            if min(losses.items(), key=lambda found: abs(found[0] - step))[1] > first / 2
        ]
        return [reach for _, reach in unsolved or later]

    def reaches(self) -> list[tuple[int, Reach]]:
        """(step, how far the gradient reached back then)."""
        return [(signs.step, signs.reach) for signs in self.signs if signs.reach is not None]


def read_learning(folders: Iterable[Path]) -> list[Learning]:
    """Read the logs of these run folders, under names that tell them apart.

    RunFolderError for a folder without a log, or with one that is damaged; a last line half-written is left out, so
    that a run can be looked at while it trains.
    """
    folders = list(folders)
    return [_read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def _names(folders: list[Path]) -> list[str]:
    """The folders' own names, with as many parents as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max((len(one) for one in parts), default=1) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{folder.name} ({number})" for number, folder in enumerate(folders, 1)]


def _read(folder: Path, name: str) -> Learning:
    lines = _lines(folder)
    steps = tuple(line for line in lines if "loss" in line and "refused" not in line)
    if not steps:
        raise RunFolderError("this run has not logged a step yet", where=str(folder / METRICS))
    validations = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    is_text = all("bits_per_byte" in line for line in steps)
    key = "bits_per_byte" if is_text and all("bits_per_byte" in found for _, found in validations) else "loss"
    rate, optimizer = _optimizer(folder)
    return Learning(
        name=name,
        folder=folder,
        steps=steps,
        validations=tuple((step, found[key]) for step, found in validations if key in found),
        signs=tuple(_signs(line) for line in lines if "vital_signs" in line),
        unit=key,
        learning_rate=rate,
        optimizer=optimizer,
    )


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / METRICS
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = "give the folder of a run that trained a network by steps: the one above checkpoints/"
        raise RunFolderError("there is no record of training here", where=str(path), hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"the record of training cannot be read ({error})", where=str(path)) from error
    lines, rows = [], text.split("\n")
    for number, row in enumerate(rows, 1):
        try:
            line = json.loads(row) if row else None
        except ValueError as error:
            if number == len(rows):  # the run is writing it
                break
            raise RunFolderError("this line of the record is no JSON", where=f"{path}:{number}") from error
        if line is None:
            continue
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise RunFolderError("this line of the record tells no step", where=f"{path}:{number}")
        lines.append(line)
    return lines


def _signs(line: dict[str, Any]) -> Signs:
    found = line["vital_signs"]
    reach = found.get("gradient_reach")
    return Signs(
        line["step"],
        found["layers"],
        reach and Reach(reach["steps"], reach["longest"], tuple((d, share) for d, share in reach["curve"])),
    )


def _optimizer(folder: Path) -> tuple[float | None, str | None]:
    """The highest learning rate and the optimiser, where the folder's header names them."""
    if not (folder / "rung.json").is_file():
        return None, None
    header = read_header(folder)
    told = header.get("recipe", {}).get("training") or header.get("plan", {}).get("training") or {}
    return told.get("learning_rate"), told.get("optimizer")
