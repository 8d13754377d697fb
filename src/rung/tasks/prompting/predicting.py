"""Predicting with a prompted model that was chosen before."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rung.data.cache import ANSWERS, cache_folder
from rung.errors import RunFolderError
from rung.records import Record
from rung.runfolder import verify
from rung.tasks.classification.predictions import Predictions
from rung.tasks.prompting.cache import ResponseCache
from rung.tasks.prompting.costs import Price, Spending, Usage, cost_per_1000
from rung.tasks.prompting.endpoint import Endpoint, EndpointOptions
from rung.tasks.prompting.judging import EndpointJudge, Judge, LocalJudge, Scoring, answer_variation
from rung.tasks.prompting.target import Target
from rung.tasks.prompting.templates import Prompt
from rung.tasks.run import model_folder

if TYPE_CHECKING:
    from rung.tasks.prompting.local_model import LocalModel

MODEL_TYPE = "rung-prompted"
CONFIG, CHOOSING = "config.json", "choosing.json"
_SHOWN_FAILURES = 20


def llm_cache() -> Path:
    """Where answers are kept: `RUNG_CACHE`/llm."""
    return cache_folder() / ANSWERS


class PromptedPredictor:
    """Asks for the label of each text. Counts what it asked since it was loaded; see `report`."""

    def __init__(
        self,
        judge: Judge,
        prompt: Prompt,
        scoring: Scoring,
        *,
        choosing: dict[str, Any],
        price: Price | None = None,
        target: Target | None = None,
    ) -> None:
        """Use `load`."""
        self.prompt = prompt
        self.scoring: Scoring = scoring
        self.data_leaves_machine = target is not None and not target.is_local
        self._judge = judge
        self._choosing = choosing
        self._price = price
        self._target = target
        self._asked = self._failed = self._one_hot = 0
        self._failures: list[dict[str, str]] = []
        self._usages: list[Usage | None] = []
        self._seconds: list[float] = []

    @property
    def is_local(self) -> bool:
        """Whether the model is a folder on this machine."""
        return self._target is None

    @property
    def num_parameters(self) -> int | None:
        """Learned numbers of a local model; None for an endpoint."""
        return self._judge.num_parameters

    def predict(self, inputs: Sequence[str], *, batch_size: int = 32) -> Predictions:
        """Ask for each text, at most `batch_size` at a time; a text without a readable answer is marked as failed.

        Raises EndpointError, SpendingCapReached.
        """
        judgement = self._judge.judge(self.prompt, inputs, workers=batch_size)
        self._asked += len(inputs)
        self._failed += int(judgement.failed.sum())
        self._one_hot += judgement.one_hot
        room = _SHOWN_FAILURES - len(self._failures)
        self._failures += [
            {"text": inputs[row], "problem": problem} for row, problem in list(judgement.failures.items())[:room]
        ]
        self._usages += judgement.usages
        self._seconds += judgement.seconds
        return Predictions(judgement.probabilities[self.scoring], judgement.failed)

    def answer_variation(self, texts: Sequence[str], *, samples: int = 5, temperature: float = 0.7) -> dict[str, Any]:
        """How much answers vary when each text is asked `samples` times; see `judging.answer_variation`."""
        return answer_variation(self._judge, self.prompt, texts, samples=samples, temperature=temperature)

    @property
    def cost_per_1000(self) -> Record:
        """The cost of 1,000 items, from what the server counted for those asked so far."""
        if self._target is None:
            return Record(
                name="cost_per_1000",
                value=None,
                unit="currency of the price",
                n=self._asked,
                not_measured="a model on this machine has no price per token",
            )
        return cost_per_1000(self._usages, self._price)

    def details(self) -> dict[str, Any]:
        """What the report shows beside the predictions made so far: how the prompt was chosen, failures, cost, time.

        `request_seconds` are those of the requests themselves, also where the answers came from the cache since.
        """
        known = [usage for usage in self._usages if usage is not None]
        seconds = np.percentile(self._seconds, [50, 95]).tolist() if self._seconds else None
        return {
            "data_leave_machine": self.data_leaves_machine,
            "cost_per_1000": self.cost_per_1000.value,
            "parse_failures": self._failed,
            "variation": self._choosing["variation"],
            "templates": self._choosing["settings"],
            "validation_items": self._choosing["validation_items"],
            "asked": self._asked,
            "failures": self._failures,
            "without_probabilities": self._one_hot,
            "prompt_tokens": sum(usage.prompt_tokens for usage in known) if known else None,
            "completion_tokens": sum(usage.completion_tokens for usage in known) if known else None,
            "request_seconds": None if seconds is None else {"p50": seconds[0], "p95": seconds[1]},
        }


def load(folder: Path, *, fresh: bool = False) -> PromptedPredictor:
    """Read a folder that `PromptedRung.fit` wrote. Its endpoint or model folder is asked when predicting.

    `fresh` asks the endpoint again even where the cache holds the answer: for measuring latency and determinism.
    Raises RunFolderError for a damaged folder, or a model folder that is gone or has other weights now.
    """
    verify(folder)
    config, choosing = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (CONFIG, CHOOSING))
    if config.get("model_type") != MODEL_TYPE:
        raise RunFolderError(f"this folder holds no {MODEL_TYPE}", where=str(folder))
    prompt, named = Prompt.from_json(config["prompt"]), config["target"]
    options = EndpointOptions(**config["options"])
    if "url" not in named:
        judge: Judge = LocalJudge(_unchanged_model(named), max_tokens=options.max_tokens)
        return PromptedPredictor(judge, prompt, config["scoring"], choosing=choosing)
    price = None if config["price"] is None else Price(**config["price"])
    target = Target(named["url"], named["model"])
    endpoint = Endpoint(
        target,
        cache=ResponseCache(llm_cache(), lambda message: warnings.warn(message, stacklevel=2)),
        spending=Spending(price, config["max_cost"], folder / config["ledger"]),
        options=options,
        form=config["form"],
    )
    judge = EndpointJudge(endpoint, fresh=fresh)
    return PromptedPredictor(judge, prompt, config["scoring"], choosing=choosing, price=price, target=target)


def open_local(folder: Path, *, chat: bool, bf16: bool) -> LocalModel:
    """A local model, kept for the next who asks for it: a rung opens it to plan, to choose, to predict, to be timed."""
    from rung.tasks.bases import weights_sha256

    return _opened(folder, weights_sha256(model_folder(folder)), chat, bf16)


@lru_cache(maxsize=1)
def _opened(folder: Path, sha256: str, chat: bool, bf16: bool) -> LocalModel:  # noqa: ARG001 - other weights, another model
    from rung.tasks.prompting.local_model import LocalModel

    return LocalModel(folder, chat=chat, bf16=bf16)


def _unchanged_model(named: dict[str, Any]) -> Any:
    """The local model of a plan's target. Folders of the first versions do not say how it is asked: plainly."""
    model = open_local(Path(named["folder"]), chat=named.get("chat", False), bf16=named.get("bf16", False))
    if model.sha256 != named["sha256"]:
        raise RunFolderError(
            "the model that was prompted has other weights now", where=named["folder"], hint="run the comparison again"
        )
    return model
