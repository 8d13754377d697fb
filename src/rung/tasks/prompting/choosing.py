"""Which template, examples and scoring represent the rung, and how much these choices matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.tasks.prompting.judging import Judgement, Scoring
from rung.tasks.prompting.templates import Prompt

_SMALLEST_PROBABILITY = 1e-6  # for choosing between equals only


@dataclass(frozen=True)
class Setting:
    """One prompt under one scoring, measured on the sample of validation items."""

    prompt: Prompt
    draw: int
    scoring: Scoring
    accuracy: float
    log_loss: float
    failed: int

    @property
    def shots(self) -> int:
        """Examples shown."""
        return len(self.prompt.examples)

    def to_json(self) -> dict[str, Any]:
        """The row of a table: the template by its name, the examples by the number of their draw."""
        return {
            "template": self.prompt.template.name,
            "shots": self.shots,
            "draw": self.draw,
            "scoring": self.scoring,
            "accuracy": self.accuracy,
            "log_loss": self.log_loss,
            "failed": self.failed,
        }


def measured(prompt: Prompt, draw: int, judgement: Judgement, labels: NDArray[np.int64]) -> list[Setting]:
    """The settings that one judgement of a prompt gives, one a scoring. A failed item counts as wrong."""
    settings = []
    for scoring, probabilities in judgement.probabilities.items():
        right = (probabilities.argmax(axis=1) == labels) & ~judgement.failed
        of_truth = probabilities[np.arange(len(labels)), labels].clip(min=_SMALLEST_PROBABILITY)
        settings.append(
            Setting(
                prompt,
                draw,
                scoring,
                accuracy=float(right.mean()),
                log_loss=float(-np.log(of_truth).mean()),
                failed=int(judgement.failed.sum()),
            )
        )
    return settings


def best(settings: Sequence[Setting]) -> Setting:
    """The highest accuracy; of equals the lowest log-loss, then the fewest examples, then the first."""
    return min(settings, key=lambda setting: (-setting.accuracy, setting.log_loss, setting.shots))


def variation(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """How accuracy varies with template and draw, for each number of examples and each scoring.

    Template and draw are crossed random effects with one value a cell: accuracy = mean + template + draw + rest.
    Standard deviations are method-of-moments estimates from the mean squares of that table (Searle, Casella and
    McCulloch 1992, chapter 4), at least 0. `rest` holds the interaction and the noise of the validation sample. Without
    examples there is no draw: `draw_sd` and `rest_sd` are None and `template_sd` is the plain one, noise included.
    """
    tables = []
    for shots, scoring in dict.fromkeys((setting.shots, setting.scoring) for setting in settings):
        cells = {
            (setting.prompt.template.name, setting.draw): setting.accuracy
            for setting in settings
            if (setting.shots, setting.scoring) == (shots, scoring)
        }
        templates, draws = (list(dict.fromkeys(key)) for key in zip(*cells, strict=True))
        table = np.array([[cells[template, draw] for draw in draws] for template in templates])
        template_sd, draw_sd, rest_sd = _deviations(table)
        tables.append(
            {
                "shots": shots,
                "scoring": scoring,
                "templates": len(templates),
                "draws": len(draws) if shots else 0,
                "mean": float(table.mean()),
                "low": float(table.min()),
                "high": float(table.max()),
                "template_sd": template_sd,
                "draw_sd": draw_sd,
                "rest_sd": rest_sd,
            }
        )
    return tables


def _deviations(table: NDArray[np.float64]) -> tuple[float | None, float | None, float | None]:
    """Standard deviations of rows, columns and rest of `table` (templates, draws); None where they need more cells."""
    rows, columns = table.shape
    row_means, column_means = table.mean(axis=1), table.mean(axis=0)
    if rows < 2 or columns < 2:
        return (float(row_means.std(ddof=1)) if rows > 1 else None), None, None
    rest = table - row_means[:, None] - column_means[None] + table.mean()
    rest_square = float((rest**2).sum() / ((rows - 1) * (columns - 1)))
    row_variance = row_means.var(ddof=1) - rest_square / columns
    column_variance = column_means.var(ddof=1) - rest_square / rows
    return (
        float(np.sqrt(max(0.0, row_variance))),
        float(np.sqrt(max(0.0, column_variance))),
        float(np.sqrt(rest_square)),
    )
