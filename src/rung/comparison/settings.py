"""What a comparison is asked to do, fixed before its first fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rung.errors import UsageError, did_you_mean


class Settings(BaseModel):
    """Everything that decides a comparison beside the data. `margin` is in the metric's own unit: 0.01 is one point.

    `reference` names the rung that stands for "an LLM"; None: the strongest pretrained language model on validation or,
    without one, the highest rung.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    minutes: float | None = Field(default=10.0, gt=0)
    seed: int = Field(default=0, ge=0)
    seeds: int = Field(default=3, ge=1, le=20)
    margin: float = Field(default=0.01, gt=0, lt=0.5)
    metric: str = "accuracy"
    rungs: tuple[str, ...] | None = None
    reference: str | None = None
    curves: tuple[str, ...] | None = Field(default=None, description="rungs with a learning curve; None: all that fit")
    watts_per_core: float | None = Field(default=None, gt=0)
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _reference_takes_part(self) -> Self:
        if self.reference is not None and self.rungs is not None and self.reference not in self.rungs:
            raise UsageError(
                f"the reference '{self.reference}' is not among the rungs {', '.join(self.rungs)}",
                hint="add it to --rungs, or name another with --reference",
            )
        return self


def checked_settings(values: Mapping[str, Any], metrics: Sequence[str]) -> Settings:
    """The wishes of a user, checked before any data is read: a verdict can rest on one of `metrics`, the first if none.

    Raises UsageError.
    """
    try:
        wish = Settings(**{"metric": metrics[0], **values})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{name} = {first['input']!r} is refused: {first['msg']}", hint="see rung compare --help"
        ) from error
    if wish.metric not in metrics:
        raise UsageError(
            f"no verdict can rest on '{wish.metric}'{did_you_mean(wish.metric, list(metrics))}",
            hint=f"choose from {', '.join(metrics)}",
        )
    return wish
