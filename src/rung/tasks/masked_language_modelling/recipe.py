"""The recipe of a masked language model. `None` means "the plan decides", as in `rung.recipe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rung.errors import UsageError
from rung.recipe import AnyRecipe, OptimizerName, Section, TextSection

DEFAULT_MINUTES = 10.0


class WordPieceSection(Section):
    """How text becomes tokens: lower-cased WordPiece."""

    vocab_size: int | None = Field(default=None, ge=64, le=1_000_000)


class EncoderSection(Section):
    """The network, in the spelling of BERT's config.json."""

    hidden_size: int | None = Field(default=None, ge=8)
    num_hidden_layers: int | None = Field(default=None, ge=1)
    num_attention_heads: int | None = Field(default=None, ge=1)
    intermediate_size: int | None = Field(default=None, ge=8)
    max_position_embeddings: int | None = Field(default=None, ge=8, description="tokens of a window, brackets included")
    dropout: float | None = Field(default=None, ge=0, lt=1, description="on embeddings and residual branches")


class MaskingSection(Section):
    """Which tokens are to be guessed."""

    share: float = Field(default=0.15, gt=0, lt=1, description="share of the tokens that are hidden")
    whole_words: bool = Field(default=True, description="hide all pieces of a word together")


class EncoderTrainingSection(Section):
    """The budget, the optimiser and the schedule."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps; plans without a clock")
    batch_size: int | None = Field(default=None, ge=1, description="windows per optimiser step, over all ranks")
    micro_batch_size: int | None = Field(default=None, ge=1, description="windows per forward pass and rank")
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    decay_fraction: float = Field(default=0.5, gt=0, le=1, description="share of the steps in the final linear decay")
    final_learning_rate_fraction: float = Field(default=0.02, ge=0, le=1)
    schedule: dict[str, Any] | None = Field(
        default=None, description="the whole schedule as a finished run stored it, revisions included"
    )
    gradient_clip: float = Field(default=1.0, gt=0)
    precision: Literal["bf16", "fp32"] | None = None
    threads: int | None = Field(default=None, ge=1)
    validate_every: int | None = Field(default=None, ge=1, description="steps between validations")
    checkpoint_every: int | None = Field(default=None, ge=1, description="steps between checkpoints")
    tensorboard: bool = False
    vital_signs_every: int | None = Field(
        default=None, ge=0, description="steps between vital signs; 0: none; by default under 1 % of the time"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give training.minutes or training.steps, not both")
        return self


class MaskedRecipe(AnyRecipe):
    """What masked language model to train."""

    text: TextSection = TextSection()
    tokenizer: WordPieceSection = WordPieceSection()
    net: EncoderSection = EncoderSection()
    masking: MaskingSection = MaskingSection()
    training: EncoderTrainingSection = EncoderTrainingSection()


def as_recipe(
    texts: Sequence[str | Path],
    *,
    valid: Sequence[str | Path],
    recipe: MaskedRecipe | Mapping[str, Any] | Path | None,
    overrides: Mapping[str, Any] | None,
    minutes: float | None,
    steps: int | None,
    seed: int | None,
    threads: int | None,
) -> MaskedRecipe:
    """One recipe of all that a caller asked for: single arguments over `overrides` over `recipe`.

    Raises RecipeError or UsageError for what is unknown, contradictory or missing.
    """
    if minutes is not None and steps is not None:
        raise UsageError("minutes and steps contradict each other", hint="give one of them")
    base = _base(recipe)
    changes: dict[str, Any] = dict(overrides or {})
    if minutes is not None or (steps is not None and steps != base.training.steps):
        changes |= {"training.minutes": minutes, "training.steps": steps, "training.schedule": None}
    given = {
        "text.files": [str(path) for path in texts],
        "text.valid": [str(path) for path in valid],
        "seed": seed,
        "training.threads": threads,
    }
    changes |= {key: value for key, value in given.items() if value not in (None, [])}
    wanted = base.with_overrides(changes)
    if not wanted.text.files:
        raise UsageError("there is no text to train on", hint="give files or folders: rung train my_texts/ --net bert")
    if wanted.training.minutes is None and wanted.training.steps is None:
        wanted = wanted.with_overrides({"training.minutes": DEFAULT_MINUTES})
    return wanted


def _base(recipe: MaskedRecipe | Mapping[str, Any] | Path | None) -> MaskedRecipe:
    if recipe is None:
        return MaskedRecipe()
    if isinstance(recipe, MaskedRecipe):
        return recipe
    return MaskedRecipe.parse(recipe) if isinstance(recipe, Mapping) else MaskedRecipe.load(Path(recipe))
