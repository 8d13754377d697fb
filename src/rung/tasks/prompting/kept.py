"""Answers of a local model, kept as they come: a command that was interrupted goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rung.tasks.prompting.cache import ResponseCache, content_key
from rung.tasks.prompting.judging import Judge, Judgement, Scoring
from rung.tasks.prompting.templates import Prompt
from rung.version import __version__


class KeptJudge:
    """Asks another judge what was not asked before, and keeps each judgement whole, to the last bit."""

    def __init__(
        self,
        judge: Judge,
        cache: ResponseCache,
        model: Mapping[str, Any],
        read: Callable[[Prompt, str], Sequence[int]],
    ) -> None:
        """`model`: what decides the answers beside the question, as JSON. `read`: the tokens that a question becomes.

        With these, another tokenizer or chat template of the same weights is asked anew.
        """
        self._judge, self._cache, self._model, self._read = judge, cache, dict(model), read

    @property
    def scorings(self) -> tuple[Scoring, ...]:
        """Those of the judge."""
        return self._judge.scorings

    @property
    def num_parameters(self) -> int | None:
        """Those of the judge."""
        return self._judge.num_parameters

    def judge(self, prompt: Prompt, texts: Sequence[str], *, workers: int | None = None) -> Judgement:
        """What the judge says or said about just these texts together; `took` is what it took then."""
        tokens = [list(self._read(prompt, text)) for text in texts[:1]]
        question = {"prompt": prompt.to_json(), "tokens": tokens, "texts": list(texts)}
        key = content_key({"rung": __version__, "model": self._model, **question})
        kept = self._cache.get(key)
        if kept is not None:
            return _from_json(kept)
        began = time.monotonic()
        found = self._judge.judge(prompt, texts, workers=workers)
        found = replace(found, took=time.monotonic() - began)
        self._cache.put(key, _to_json(found))
        return found

    def sample(self, prompt: Prompt, text: str, *, samples: int, temperature: float) -> list[str]:
        """As the judge; drawn answers are not kept."""
        return self._judge.sample(prompt, text, samples=samples, temperature=temperature)


def _to_json(found: Judgement) -> dict[str, Any]:
    """What a judgement of a local model has: it counts no usage, and no seconds of single questions."""
    return {
        "probabilities": {scoring: table.tolist() for scoring, table in found.probabilities.items()},
        "failed": found.failed.tolist(),
        "failures": {str(row): reason for row, reason in found.failures.items()},
        "one_hot": found.one_hot,
        "took": found.took,
    }


def _from_json(kept: Mapping[str, Any]) -> Judgement:
    return Judgement(
        probabilities={scoring: np.array(table) for scoring, table in kept["probabilities"].items()},
        failed=np.array(kept["failed"], dtype=np.bool_),
        failures={int(row): reason for row, reason in kept["failures"].items()},
        one_hot=kept["one_hot"],
        took=kept["took"],
    )
