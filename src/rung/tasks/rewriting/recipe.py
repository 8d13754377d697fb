"""The recipe of a text-to-text network. `None` means "the plan decides", as in `rung.recipe`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rung.recipe import AnyRecipe, OptimizerName, Section

Family = Literal["transformer", "lstm"]


class PairsSection(Section):
    """Which pairs of texts: tables with two columns, or two files aligned line by line."""

    files: tuple[str, ...] = Field(default=(), description="tables, or a source file and a target file")
    source: str | None = Field(default=None, description="column of the source, or what its file's name ends in")
    target: str | None = Field(default=None, description="column of the target, or what its file's name ends in")
    valid: tuple[str, ...] = Field(default=(), description="pairs to validate on, instead of a split")
    test: tuple[str, ...] = Field(default=(), description="pairs to test on, instead of a split")
    held_out: float = Field(default=0.05, gt=0, lt=0.4, description="share for each part that is split off")


class TrainingPairsSection(PairsSection):
    """The pairs of a new network, and what it may learn from before."""

    pretrain: tuple[str, ...] = Field(default=(), description="files and folders of raw text to pretrain on")


class PairTokenizerSection(Section):
    """How text becomes tokens: one byte-level BPE for both sides."""

    vocab_size: int | None = Field(default=None, ge=258, le=1_000_000)


class RewritingNetSection(Section):
    """The encoder-decoder; sizes hold for both sides."""

    family: Family = "transformer"
    hidden_size: int | None = Field(default=None, ge=8)
    num_hidden_layers: int | None = Field(default=None, ge=1, description="on each side")
    num_attention_heads: int | None = Field(default=None, ge=1, description="of the Transformer")
    intermediate_size: int | None = Field(default=None, ge=8, description="of the Transformer")
    max_position_embeddings: int | None = Field(default=None, ge=8, description="the longest text in tokens")
    attention: Literal["general", "additive"] = Field(default="general", description="of the LSTM: Luong's, Bahdanau's")
    dropout: float | None = Field(default=None, ge=0, lt=1)


class RewritingTrainingSection(Section):
    """The budget, the optimiser and the schedule."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps of both phases; plans without a clock")
    pretraining_share: float = Field(
        default=0.3, gt=0, lt=1, description="share of minutes or steps for pretraining, where there is text for it"
    )
    tokens_per_batch: int | None = Field(default=None, ge=16, description="tokens a side in one batch, with padding")
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    warmup_steps: int | None = Field(default=None, ge=0)
    decay_fraction: float = Field(default=0.6, gt=0, le=1, description="share of the steps in the final linear decay")
    final_learning_rate_fraction: float = Field(default=0.02, ge=0, le=1)
    schedule: dict[str, Any] | None = Field(
        default=None, description="the whole schedule as a finished run stored it, revisions included"
    )
    pretraining_schedule: dict[str, Any] | None = Field(default=None, description="likewise, of pretraining")
    gradient_clip: float = Field(default=1.0, gt=0)
    precision: Literal["bf16", "fp32"] | None = None
    threads: int | None = Field(default=None, ge=1)
    validate_every: int | None = Field(default=None, ge=1, description="steps between validations and checkpoints")
    averaged: int = Field(default=5, ge=1, description="checkpoints whose mean is tried at the end; 1: none")
    tensorboard: bool = False
    vital_signs_every: int | None = Field(
        default=None, ge=0, description="steps between vital signs; 0: none; by default under 1 % of the time"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give training.minutes or training.steps, not both")
        return self


class BeamSection(Section):
    """How targets are searched for when the finished network is measured and used."""

    num_beams: int = Field(default=4, ge=1, le=64)
    length_penalty: float = Field(default=1.0, ge=-10, le=10)


class RewritingRecipe(AnyRecipe):
    """What text-to-text network to train."""

    pairs: TrainingPairsSection = TrainingPairsSection()
    tokenizer: PairTokenizerSection = PairTokenizerSection()
    net: RewritingNetSection = RewritingNetSection()
    training: RewritingTrainingSection = RewritingTrainingSection()
    beam: BeamSection = BeamSection()
