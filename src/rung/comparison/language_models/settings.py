"""What a comparison of language models is asked to do, fixed before the first of them is trained."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rung.data.tokenizer import TokenizerKind


class LadderSettings(BaseModel):
    """Everything that decides the ladder beside the text. `margin` is in bits per byte.

    Every network is trained for an equal part of the `minutes`, or for `steps` optimiser steps without any clock. With
    `parameters`, every network also has about so many, embeddings included; else each has the size that suits its time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    minutes: float | None = Field(default=10.0, gt=0)
    steps: int | None = Field(default=None, ge=1)
    parameters: int | None = Field(default=None, ge=1_000)
    tokenizer: TokenizerKind = "bpe"
    vocab_size: int | None = Field(default=None, ge=257)
    rungs: tuple[str, ...] | None = None
    margin: float = Field(default=0.02, gt=0)
    seed: int = Field(default=0, ge=0)
    seeds: int = Field(default=1, ge=1, le=20)
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("give either minutes or steps")
        return self
