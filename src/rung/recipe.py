"""The recipe: everything that decides what is trained, in one validated object.

A value of `None` means "the plan decides". The plan returns a recipe without such gaps, and that resolved recipe is
what a run folder stores: given the same text it gives the same weights, without consulting a clock.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rung.errors import RecipeError, did_you_mean

OptimizerName = Literal["adam", "adamw", "momentum", "muon", "nesterov", "sgd"]


class Section(BaseModel):
    """Part of a recipe: unknown keys are refused, and nothing changes once it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TextSection(Section):
    """Which text, and how it is cleaned and split."""

    files: tuple[str, ...] = Field(default=(), description="files and folders to train on")
    valid: tuple[str, ...] = Field(default=(), description="files and folders to validate on, instead of a split")
    text_column: str | None = Field(default=None, description="column that holds the text in .jsonl, .csv, .parquet")
    valid_fraction: float = Field(default=0.05, gt=0, lt=0.5, description="share of the documents held out")
    near_duplicate_threshold: float = Field(
        default=0.8, ge=0.5, le=1, description="Jaccard similarity from which one of two documents is dropped"
    )


class TokenizerSection(Section):
    """How text becomes tokens."""

    kind: Literal["bpe", "byte", "character", "word"] = "bpe"
    vocab_size: int | None = Field(default=None, ge=257, le=1_000_000, description="rows of the embedding matrix")


class NetSection(Section):
    """The network, in the spelling of Hugging Face's config.json."""

    family: Literal["decoder", "feedforward", "rnn", "lstm", "gru", "ngram"] = "decoder"
    model_type: Literal["qwen3", "llama", "qwen2"] = "qwen3"
    parameters: int | None = Field(default=None, ge=1000, description="about how many in all, instead of a size")
    order: int | None = Field(default=None, ge=1, le=16, description="n-gram: tokens of the longest, the last included")
    hidden_size: int | None = Field(default=None, ge=8)
    embedding_size: int | None = Field(default=None, ge=4, description="feed-forward and recurrent networks")
    num_hidden_layers: int | None = Field(default=None, ge=1)
    num_attention_heads: int | None = Field(default=None, ge=1)
    num_key_value_heads: int | None = Field(default=None, ge=1)
    head_dim: int | None = Field(default=None, ge=2)
    intermediate_size: int | None = Field(default=None, ge=8)
    max_position_embeddings: int | None = Field(default=None, ge=1, description="context length in tokens")
    backpropagate_through: int | None = Field(
        default=None, ge=1, description="recurrent: tokens that gradients run back through; the state goes further"
    )
    tie_word_embeddings: bool | None = None
    direct_connections: bool | None = Field(default=None, description="feed-forward: from the embeddings to the scores")
    dropout: float | None = Field(default=None, ge=0, lt=1, description="on embeddings and between layers")
    dropout_kind: Literal["ordinary", "locked"] = Field(
        default="locked", description="recurrent: dropped anew at each token, or the same all through a window"
    )

    @model_validator(mode="after")
    def _only_own_fields(self) -> Self:
        foreign = [
            name
            for name, field in type(self).model_fields.items()
            if name not in {"family", *_FIELDS_OF[self.family]} and getattr(self, name) != field.default
        ]
        if foreign:
            raise ValueError(f"{foreign[0]} means nothing to a network of the family {self.family}: leave it out")
        return self


_FIELDS_OF_NETWORKS = {"parameters", "hidden_size", "tie_word_embeddings", "dropout"}
_RECURRENT = _FIELDS_OF_NETWORKS | {"embedding_size", "num_hidden_layers", "backpropagate_through", "dropout_kind"}
_FIELDS_OF = {
    "ngram": {"order"},
    "decoder": _FIELDS_OF_NETWORKS
    | {
        "model_type",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "max_position_embeddings",
    },
    "feedforward": _FIELDS_OF_NETWORKS | {"embedding_size", "max_position_embeddings", "direct_connections"},
    "rnn": _RECURRENT,
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
}
"""Which settings of `NetSection` mean something to which family."""


class TrainingSection(Section):
    """The budget, the optimiser and the schedule."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps; plans without a clock")
    batch_size: int | None = Field(default=None, ge=1, description="sequences per optimiser step, over all ranks")
    micro_batch_size: int | None = Field(default=None, ge=1, description="sequences per forward pass and rank")
    optimizer: OptimizerName | None = Field(default=None, description="see `rung.training.optimizers`")
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    decay_fraction: float = Field(default=0.5, gt=0, le=1, description="share of the steps in the final linear decay")
    final_learning_rate_fraction: float = Field(default=0.05, ge=0, le=1)
    schedule: dict[str, Any] | None = Field(
        default=None, description="the whole schedule as a finished run stored it, revisions included"
    )
    gradient_clip: float = Field(default=1.0, gt=0)
    precision: Literal["bf16", "fp32"] | None = None
    compile: bool | None = None
    threads: int | None = Field(default=None, ge=1)
    validate_every: int | None = Field(default=None, ge=1, description="steps between validations")
    checkpoint_every: int | None = Field(default=None, ge=1, description="steps between checkpoints")
    patience: int | None = Field(default=None, ge=1, description="stop after so many validations without a new best")
    tensorboard: bool = False
    vital_signs_every: int | None = Field(
        default=None, ge=0, description="steps between vital signs; 0: none; by default under 1 % of the time"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give training.minutes or training.steps, not both")
        return self


class AnyRecipe(Section):
    """What every recipe has, whatever is trained by it."""

    seed: int = Field(default=0, ge=0, lt=2**63)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str = "recipe") -> Self:
        """Validate a nested mapping. Raises RecipeError naming the key and, for an unknown one, the closest known."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _readable(error, cls, where) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe from TOML, from JSON, or from a run folder (the resolved recipe it was trained with)."""
        source = path / "rung.json" if path.is_dir() else path
        try:
            raw = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"the recipe cannot be read ({error})", where=str(source)) from error
        try:
            values = tomllib.loads(raw) if source.suffix == ".toml" else json.loads(raw)
        except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
            raise RecipeError(f"the recipe is neither valid TOML nor JSON ({error})", where=str(source)) from error
        if path.is_dir() or source.name == "rung.json":
            values = values.get("recipe", {})
        return cls.parse(values, where=str(source))

    def with_overrides(self, overrides: Mapping[str, Any], *, where: str = "--set") -> Self:
        """Return a copy with dotted keys replaced: `{"net.hidden_size": 256}`. `None` hands a value back to the plan.

        Raises RecipeError for unknown keys and for values that contradict each other.
        """
        values = self.model_dump()
        for dotted, value in overrides.items():
            *sections, key = dotted.split(".")
            target = values
            for section in sections:
                if not isinstance(target.get(section), dict):
                    raise RecipeError(f"unknown recipe key '{dotted}'{_suggest(dotted, type(self))}", where=where)
                target = target[section]
            if key not in target:
                raise RecipeError(f"unknown recipe key '{dotted}'{_suggest(dotted, type(self))}", where=where)
            target[key] = value
        return type(self).parse(values, where=where)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return self.model_dump(mode="json")


class Recipe(AnyRecipe):
    """What language model to train."""

    text: TextSection = TextSection()
    tokenizer: TokenizerSection = TokenizerSection()
    net: NetSection = NetSection()
    training: TrainingSection = TrainingSection()


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key of a recipe."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys += known_keys(section, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def parse_assignment(assignment: str) -> tuple[str, Any]:
    """Split one `--set key=value`; the value is read as TOML (`0.1`, `true`, `"text"`), a bare word as text."""
    key, equals, raw = assignment.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"'{assignment}' is not of the form section.key=value", where="--set")
    raw = raw.strip()
    if raw.lower() in ("none", "auto"):
        return key.strip(), None
    try:
        return key.strip(), tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), raw


def _suggest(dotted: str, model: type[BaseModel]) -> str:
    """The known key of the same name in another section, or else the one spelled most alike."""
    keys = known_keys(model)
    name = dotted.rsplit(".", maxsplit=1)[-1]
    moved = next((key for key in keys if key.rsplit(".", maxsplit=1)[-1] == name), None)
    return f"; did you mean '{moved}'?" if moved else did_you_mean(dotted, keys)


def _readable(error: ValidationError, model: type[BaseModel], where: str) -> RecipeError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return RecipeError(
            f"unknown recipe key '{key}'{_suggest(key, model)}",
            where=where,
            hint=f"known keys: {', '.join(known_keys(model))}",
        )
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] == "value_error" else f" (given: {first['input']!r})"
    return RecipeError(f"{key + ': ' if key else ''}{message}{given}", where=where)
