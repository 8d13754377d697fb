"""The rung that is not trained but asked: a prompted language model, zero-shot and with examples."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rung.errors import PlanError
from rung.progress import Progress
from rung.runfolder import write_folder, write_json
from rung.tasks.prompting.cache import ResponseCache
from rung.tasks.prompting.choosing import Setting, best, measured, variation
from rung.tasks.prompting.costs import Price, Spending
from rung.tasks.prompting.endpoint import Endpoint, EndpointOptions
from rung.tasks.prompting.estimating import CANDIDATES, estimate, seconds_per_text
from rung.tasks.prompting.judging import EndpointJudge, Judge, LocalJudge
from rung.tasks.prompting.predicting import CHOOSING, CONFIG, MODEL_TYPE, llm_cache, load, open_local
from rung.tasks.prompting.target import Target, parse_target
from rung.tasks.prompting.templates import LONGEST_EXAMPLE, TEMPLATES, Prompt, default_shots, distinct_prompts
from rung.tasks.task import FitReport, Indices, Plan, UsualRung
from rung.version import __version__

if TYPE_CHECKING:
    from rung.data.labelled import LabelledItems

__all__ = ["PromptedRung", "load"]

LEDGER = "llm-spending.jsonl"
_CHOOSING_SHARE = 0.6  # of a local model's time: the rest is for the test items
_FEWEST_ASKED = 50  # of them: fewer say nothing


@dataclass(frozen=True)
class PromptedRung(UsualRung):
    """Asks `target`, an endpoint's URL (`http://127.0.0.1:8000/v1#MODEL`) or the folder of a generative model.

    `price` (per million tokens) and `max_cost` are in one currency. What was paid is counted in `ledger` (default: a
    file beside the rung's folder), and `max_cost` holds for all that is counted there.
    """

    is_pretrained_language_model = True
    is_random = False
    learns = False

    target: str
    model: str | None = None
    price: Price | None = None
    max_cost: float | None = None
    ledger: Path | None = None
    shots: tuple[int, ...] | None = None  # None: none, and `default_shots` of the number of classes
    options: EndpointOptions = field(default_factory=EndpointOptions)
    name: str = "prompted"
    height: int = 9
    called: str | None = None  # what people know the model by, where the target is not that

    def __post_init__(self) -> None:
        """Raises UsageError for a target, price or cap that makes no sense."""
        parse_target(self.target, self.model)
        Spending(self.price, self.max_cost)

    @property
    def description(self) -> str:
        """One phrase for people."""
        return f"a language model that is asked, not trained ({self.called or self.target})"

    @property
    def data_leaves_machine(self) -> bool:
        """Whether texts are sent to another machine."""
        where = parse_target(self.target, self.model)
        return isinstance(where, Target) and not where.is_local

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:
        """Decide how many validation items and draws are affordable, and estimate tokens, requests, cost and time.

        No text is sent: at most the endpoint is asked which models it has. A local model is timed on a few texts; an
        endpoint is assumed to take a second a request, which the plan states. Of a local model's `seconds` at most
        0.6 are for choosing; where the rest is too short for all test items, it is asked about as many as fit.

        Raises PlanError when even the smallest choice does not fit `seconds` or the cap.
        """
        began, where = time.perf_counter(), parse_target(self.target, self.model)
        # Half a token a byte is more than any label needs, and an answer that is cut off names none.
        longest_label = max(len(name.encode()) for name in task.label_names)
        options = replace(self.options, max_tokens=max(self.options.max_tokens, longest_label // 2))
        shots, timed = self._drawable_shots(task), None
        if isinstance(where, Target):
            endpoint = self._endpoint(where, options, Spending(self.price, self.max_cost), None)
            target: dict[str, Any] = {"url": where.url, "model": endpoint.model}
        else:
            way = _way_of_asking(where)
            local = open_local(where, **way)
            target = {"folder": str(local.folder.resolve()), "sha256": local.sha256, **way}
            times = seconds_per_text(task, shots, local, seed=seed)
            shots, timed = tuple(times), max(times.values())
            if seconds is not None:
                seconds -= time.perf_counter() - began
        for items, draws in CANDIDATES:
            expected = estimate(
                task, shots, draws, items, seed=seed, options=options, price=self.price, seconds_per_text=timed
            )
            share = 1.0 if timed is None else _CHOOSING_SHARE
            too_long = seconds is not None and expected["seconds"] > share * seconds
            asked = None if seconds is None or timed is None else int((seconds - expected["seconds"]) / timed)
            too_long |= asked is not None and asked < min(_FEWEST_ASKED, len(task.items["test"]))
            too_dear = self.max_cost is not None and (expected["cost"] or 0) > self.max_cost
            if not too_long and not too_dear:
                return {
                    "target": target,
                    "templates": [template.name for template in TEMPLATES],
                    "shots": list(shots),
                    "draws": draws,
                    "validation_items": min(items, len(task.items["valid"])),
                    "options": asdict(options),
                    "estimate": expected,
                    **({} if asked is None or asked >= len(task.items["test"]) else {"test_items": asked}),
                }
        limit = f"take about {expected['seconds']:.0f} s, and there are {max(0.0, seconds or 0.0):.0f} s"
        if too_dear:
            limit = f"cost about {expected['cost']:.4g} of at most {self.max_cost}"
        raise PlanError(
            f"trying {len(TEMPLATES)} templates and predicting the test items would {limit} ({expected['basis']})",
            where=self.name,
            hint="raise --spend-at-most" if too_dear else "raise --minutes",
        )

    def _drawable_shots(self, task: Any) -> tuple[int, ...]:
        """The numbers of examples to try; by default none and a few, or none alone where too few texts are short."""
        if self.shots is not None:
            return self.shots
        count = default_shots(len(task.label_names))
        short = sum(len(text) <= LONGEST_EXAMPLE for text in task.items["train"].texts)
        return (0, count) if short >= count else (0,)

    def fit(self, task: Any, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress) -> FitReport:
        """Try every prompt of the plan on a sample of validation items, and write the best into a run folder.

        Raises EndpointError, SpendingCapReached: what was answered by then is kept in the cache.
        """
        started, cpu_started = time.perf_counter(), time.process_time()
        ledger = self.ledger or folder.parent / LEDGER
        where = parse_target(self.target, self.model)
        judge: Judge
        if isinstance(where, Target):
            ledger.parent.mkdir(parents=True, exist_ok=True)
            spending = Spending(self.price, self.max_cost, ledger)
            options = EndpointOptions(**plan["options"])
            endpoint = self._endpoint(Target(where.url, plan["target"]["model"]), options, spending, progress.say)
            judge = EndpointJudge(endpoint)
        else:
            named = plan["target"]
            way = {name: named[name] for name in ("chat", "bf16")}
            endpoint, judge = None, LocalJudge(open_local(Path(named["folder"]), **way))
        valid: LabelledItems = task.items["valid"]
        sampled = np.sort(np.random.default_rng(seed).permutation(len(valid))[: plan["validation_items"]])
        prompts = distinct_prompts(
            task.label_names, task.items["train"], items, shots=plan["shots"], draws=plan["draws"], seed=seed
        )
        settings = _measure_all(prompts, judge, valid.take(sampled), progress)
        chosen = best(settings)
        found = {
            "validation_items": len(sampled),
            "settings": [setting.to_json() for setting in settings],
            "variation": variation(settings),
        }
        config = self._config(plan, chosen, folder, ledger, endpoint)

        def fill(temporary: Path) -> None:
            write_json(temporary / CONFIG, config)
            write_json(temporary / CHOOSING, found)

        header = {
            "rung_version": __version__,
            "task": "classification",
            "rung": self.name,
            "recipe": plan,
            "data": {"sha256": task.items["train"].take(items).sha256},
            "state": "finished",
        }
        write_folder(folder, fill, header)
        return FitReport(
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu_started,
            finished=True,
            note=_note(chosen, settings, len(sampled)) + _of_sample(plan, len(task.items["test"])),
            validation_score=chosen.accuracy,
            chosen={
                **chosen.to_json(),
                "validation_items": len(sampled),
                "variation": found["variation"],
                "data_leaves_machine": self.data_leaves_machine,
            },
        )

    def _endpoint(
        self, target: Target, options: EndpointOptions, spending: Spending, say: Callable[[str], None] | None
    ) -> Endpoint:
        cache = ResponseCache(llm_cache(), say or (lambda _message: None))
        return Endpoint(target, cache=cache, spending=spending, options=options)

    def _config(
        self, plan: Plan, chosen: Setting, folder: Path, ledger: Path, endpoint: Endpoint | None
    ) -> dict[str, Any]:
        names = chosen.prompt.label_names
        config = {
            "model_type": MODEL_TYPE,
            "id2label": {str(index): name for index, name in enumerate(names)},
            "label2id": {name: index for index, name in enumerate(names)},
            "target": plan["target"],
            "scoring": chosen.scoring,
            "shots": chosen.shots,
            "prompt": chosen.prompt.to_json(),
            "options": plan["options"],
        }
        if endpoint is not None:
            config |= {
                "form": endpoint.form,
                "price": None if self.price is None else asdict(self.price),
                "max_cost": self.max_cost,
                "ledger": os.path.relpath(ledger, folder),
            }
        return config


def _measure_all(
    prompts: Sequence[tuple[Prompt, int]], judge: Judge, valid: LabelledItems, progress: Progress
) -> list[Setting]:
    settings: list[Setting] = []
    with progress.task("trying prompts", len(prompts) * len(valid), "answers") as advance:
        for prompt, draw in prompts:
            settings += measured(prompt, draw, judge.judge(prompt, valid.texts), valid.labels)
            advance(len(valid))
    return settings


def _note(chosen: Setting, settings: Sequence[Setting], sample: int) -> str:
    examples = f"{chosen.shots} examples (draw {chosen.draw})" if chosen.shots else "no examples"
    note = (
        f"template '{chosen.prompt.template.name}' with {examples}, scored by '{chosen.scoring}', was the best of "
        f"{len(settings)} settings on {sample} validation items"
    )
    if chosen.failed:
        note += f"; {chosen.failed} of them without a readable answer"
    if not any(setting.shots for setting in settings):
        note += "; prompts with examples were not tried"
    return note


def _of_sample(plan: Plan, items: int) -> str:
    """What is said where only some of the test items are asked about."""
    if "test_items" not in plan:
        return ""
    return (
        f"; for want of time it was asked about {plan['test_items']:,} of the {items:,} test items, drawn at random: "
        "its interval is wider, and it is compared with others on those items"
    )


def _way_of_asking(folder: Path) -> dict[str, bool]:
    """By its chat template where the folder has one, in bfloat16 where the processor multiplies it."""
    from rung.data.chat_template import find_template
    from rung.tasks.run import model_folder
    from rung.training.machine import has_bf16_instructions

    return {"chat": find_template(model_folder(folder)) is not None, "bf16": has_bf16_instructions()}
