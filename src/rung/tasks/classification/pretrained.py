"""Rungs that stand on others' weights: a base tuned whole, by LoRA, or frozen under a new head; and one to prompt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rung.errors import PlanError, RunFolderError
from rung.nets.classifier_folder import read_body_config
from rung.nets.encoder_config import EncoderConfig
from rung.nets.sentence_folder import body_folder
from rung.objectives.classification import Classification
from rung.progress import SILENT, Progress
from rung.runfolder import write_folder
from rung.tasks.bases import KNOWN_BASES, base_record, resolve_base
from rung.tasks.classification.families import Start
from rung.tasks.classification.frozen import States, solve_head, states_of
from rung.tasks.classification.network_training import (
    LabelledTexts,
    Training,
    course_of,
    device,
    seconds_per_step,
    threads_of,
    tuning_rate,
)
from rung.tasks.classification.networks import NetworkRung, in_order
from rung.tasks.classification.rungs import NAMES
from rung.tasks.classification.saving import header
from rung.tasks.classification.sequence_folder import FolderNetworks
from rung.tasks.classification.tuned_folder import save_tuned_classifier
from rung.tasks.task import FitReport, Indices, Plan, Rung, UsualRung
from rung.tasks.tuning.method import TuningMethod
from rung.training.contracts import Precision
from rung.training.machine import has_bf16_instructions

HEIGHT = 9
FROZEN, PROMPTED, LORA = "-frozen", "-prompted", "-lora"
_LENGTH_SHARE = 0.98
_LOOKED_AT = 8
_HOPELESS = 2.0  # times the seconds there are, for one pass by the quickest look: no use in timing exactly


def base_name(base: str) -> str:
    """What the rungs of a base are called after: its short name, or that of its folder where no rung has it."""
    name = base if base in KNOWN_BASES else Path(base).name or base
    return f"base-{name}" if name in NAMES else name


def names_of(base: str) -> tuple[str, ...]:
    """The rungs that a base gives: an encoder is frozen or tuned, a decoder prompted or tuned by LoRA.

    RunFolderError for other networks.
    """
    name = base_name(base)
    if isinstance(read_body_config(body_folder(resolve_base(base))), EncoderConfig):
        return name + FROZEN, name
    return name + PROMPTED, name + LORA


def base_of(rung: str, bases: Sequence[str]) -> str | None:
    """The base, of `bases` and those with short names, that gives the rung `rung`; None when none does.

    RunFolderError when the rung is of a base that is not here.
    """
    for base in (*bases, *KNOWN_BASES):
        name = base_name(base)
        if rung in {name, *(name + ending for ending in (FROZEN, PROMPTED, LORA))} and rung in names_of(base):
            return base
    return None


def make_pretrained(name: str, base: str) -> Rung:
    """The rung `name`, one of `names_of(base)`. RunFolderError when the base cannot be used."""
    folder = resolve_base(base)
    if name.endswith(PROMPTED):
        from rung.tasks.prompting.prompted import PromptedRung

        return PromptedRung(str(folder), name=name, height=HEIGHT, called=base_name(base))
    if name.endswith(FROZEN):
        return FrozenRung(name, folder, called=base_name(base))
    method = TuningMethod(kind="lora" if name.endswith(LORA) else "full")
    return FolderRung(folder, name=name, called=base_name(base), method=method)


def installed_bases() -> tuple[str, ...]:
    """The bases with a short name that are on this machine."""
    found = []
    for name in KNOWN_BASES:
        try:
            resolve_base(name)
        except RunFolderError:
            continue
        found.append(name)
    return tuple(found)


class FolderRung(NetworkRung):
    """A pretrained network from a folder under a new head, tuned as in BERT's paper (1810.04805, A.3) or by LoRA."""

    is_pretrained_language_model = True
    least_epochs: ClassVar[float] = 0.25  # what was pretrained learns from a part of the texts, too
    family: FolderNetworks

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        called: str | None = None,
        method: TuningMethod | None = None,
    ) -> None:
        """Take the network in `path`, which people know as `called`; by default the rung is named after `path`.

        RunFolderError or TokenizerError say why it cannot be used.
        """
        method = method or TuningMethod()
        is_lora = method.kind == "lora"
        family = FolderNetworks.open(Path(path), method=method)
        width = read_body_config(family.network).hidden_size
        super().__init__(
            name=name or f"folder:{path}",
            description=f"the pretrained network {called or Path(path).name}, "
            + ("tuned on the labels by low-rank additions (LoRA)" if is_lora else "fine-tuned on the labels"),
            height=HEIGHT,
            family=family,
            training=Training(
                epochs=4,
                batch_size=32,
                learning_rate=tuning_rate(method.kind, width),
                weight_decay=0.01,
                warmup_share=0.1,
                decay_share=0.9,
            ),
        )

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:
        """As `NetworkRung.plan`, but a network that is far too slow for the time is not timed at length."""
        if seconds is not None:
            needed = _quick_look(self.family, task, self.training)
            if needed > _HOPELESS * seconds:
                raise PlanError(
                    f"one pass over {len(task.items['train']):,} texts would take about {needed:.0f} s, and there are "
                    f"{seconds:.0f} s",
                    where=f"rung {self.name}",
                    hint="give more minutes, or leave this rung out with --rungs",
                )
        return super().plan(task, seconds, seed=seed)

    def _save(self, start: Start, folder: Path, label_names: Sequence[str], max_length: int) -> None:
        base = base_record(self.family.folder)
        save_tuned_classifier(start, folder, label_names, max_length, method=self.family.method, base=base)


def _quick_look(family: FolderNetworks, task: Any, training: Training) -> float:
    """Seconds of one pass over the training items, by one step of a few texts of middling length."""
    items = task.items["train"]
    with threads_of(task.threads):
        start = family.untrained(task, np.arange(len(items)))
        lengths = start.encoder.encode(items.texts, max_length=family.longest).lengths
        middling = np.argsort(lengths, kind="stable")[len(items) // 2 :][:_LOOKED_AT]
        few = items.take(middling)
        texts = LabelledTexts(start.encoder.encode(few.texts, max_length=family.longest), few.labels)
        precision: Precision = "bf16" if has_bf16_instructions() else "fp32"
        net = start.net.to(device())
        course = course_of(net, texts, texts, training, pad_token_id=start.encoder.pad_token_id, seed=0)
        settings = replace(course.settings, precision=precision, batch_size=len(few), micro_batch_size=len(few))
        step = seconds_per_step(net, Classification(), course.batches, settings, training, samples=len(few), places=1)
    return step / len(few) * len(items)


@dataclass(frozen=True)
class FrozenRung(UsualRung):
    """A pretrained body that stays as it is, under a head that logistic regression finds on its states."""

    is_pretrained_language_model = True
    is_random = False

    name: str
    folder: Path
    called: str
    height: int = HEIGHT
    _known: dict[str, tuple[States, float]] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def description(self) -> str:
        """One phrase for people."""
        return f"logistic regression on the states of the pretrained network {self.called}, which stays as it is"

    @property
    def _family(self) -> FolderNetworks:
        return FolderNetworks.open(self.folder, method=TuningMethod(kind="frozen"))

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:
        """Choose where texts are cut off; a body too slow for the time is refused by a look at a few texts."""
        family, items = self._family, task.items["train"]
        if seconds is not None:
            training = Training(epochs=1, batch_size=32, learning_rate=1e-3)
            needed = _quick_look(family, task, training) / 2
            if needed > seconds:
                raise PlanError(
                    f"reading {len(items):,} texts would take about {needed:.0f} s, and there are {seconds:.0f} s",
                    where=f"rung {self.name}",
                    hint="give more minutes, or leave this rung out with --rungs",
                )
        lengths = family.encoder.encode(items.texts, max_length=family.longest).lengths
        longest = int(np.quantile(lengths, _LENGTH_SHARE, method="higher"))
        return {"rung": self.name, "seed": seed, "base": str(self.folder), "max_length": longest}

    def fit(self, task: Any, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress) -> FitReport:
        """Compute states once for all fits, and solve for the head; see `Rung.fit`."""
        cpu_began = time.process_time()
        with threads_of(task.threads):
            start = self._family.start(task, plan, items, seed=0, progress=SILENT)
            start.net.to(device())
            everything, reading = self._states(start, task, "train", plan["max_length"], progress)
            valid, _ = self._states(start, task, "valid", plan["max_length"], progress)
            solving = time.perf_counter()
            train = States(everything.vectors[items], everything.labels[items])
            solved = solve_head(start.net, train, valid, progress=progress)
        chosen = in_order(task.items["train"].take(items))

        def fill(target: Path) -> None:
            start.net.cpu()
            base = base_record(self.folder)
            method = TuningMethod(kind="frozen")
            save_tuned_classifier(start, target, chosen.label_names, plan["max_length"], method=method, base=base)

        write_folder(folder, fill, header(self.name, plan, chosen, seed=seed))
        share = len(items) / len(everything)
        return FitReport(
            seconds=reading * share + time.perf_counter() - solving,
            cpu_seconds=time.process_time() - cpu_began,
            finished=True,
            note=f"texts are read up to {plan['max_length']} tokens, once for all fits; each has its share of that time"
            + ("" if solved.converged else "; the solver did not converge"),
            chosen={"C": solved.C},
        )

    def _states(self, start: Start, task: Any, part: str, max_length: int, progress: Progress) -> tuple[States, float]:
        """The states of a part and the seconds they took; those of the training items are kept for the next fit."""
        items = task.items[part]
        key = f"{part}:{items.sha256}:{max_length}"
        if key not in self._known:
            began = time.perf_counter()
            with progress.task(f"{self.name}: reading texts", len(items), "texts") as advance:
                texts = LabelledTexts(start.encoder.encode(items.texts, max_length=max_length), items.labels)
                states = states_of(start.net, texts, start.encoder.pad_token_id)
                advance(len(items))
            self._known[key] = states, time.perf_counter() - began
        return self._known[key]
