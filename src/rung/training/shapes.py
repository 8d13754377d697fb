"""Which shapes of a family the plan chooses between, and what each needs of memory: one module a family."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rung.errors import PlanError
from rung.nets.architectures import FAMILIES
from rung.nets.language_models import Config
from rung.recipe import NetSection
from rung.training import decoder_shapes, feedforward_shapes, recurrent_shapes

_FAMILIES: dict[str, Any] = {
    "decoder": decoder_shapes,
    "feedforward": feedforward_shapes,
    "rnn": recurrent_shapes,
    "lstm": recurrent_shapes,
    "gru": recurrent_shapes,
}
"""Each with the same functions and constants."""


@dataclass(frozen=True)
class Memory:
    """Bytes that training needs at once, by where they go."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.activations


def choose_context(net: NetSection, *, tokens: float, bytes_per_token: float) -> int:
    """What the recipe says, or what suits training on so many tokens; see `candidate_configs`."""
    return int(_family(net.family).context(net, tokens, bytes_per_token))


def learning_rate_factor(net: NetSection) -> float:
    """How much faster than a decoder the family learns best, whatever the optimiser."""
    return float(_family(net.family).learning_rate_factor(net))


def context_field(net: NetSection) -> str:
    """The setting that says what `choose_context` decides."""
    return f"net.{_family(net.family).CONTEXT_FIELD}"


def compiles(net: NetSection) -> bool:
    """Whether torch compiles the family's training step."""
    return bool(_family(net.family).COMPILES)


def candidate_configs(net: NetSection, *, vocab_size: int, context: int, eos_token_id: int) -> list[Config]:
    """Every shape of the family's ladder with what the recipe fixes put in its place, smallest first, no shape twice.

    `context` is what the family's networks see of a text: a decoder's positions, the tokens that a feed-forward network
    looks at, those that gradients of a recurrent one run back through. Where the recipe asks for a number of
    parameters, it is the one shape that comes nearest to it. PlanError for a family without a ladder.
    """
    family = _family(net.family)
    sizes = family.ladder() if net.parameters is None else family.every_size()
    made: list[Config] = [
        family.config(net, size, vocab_size=vocab_size, context=context, eos_token_id=eos_token_id) for size in sizes
    ]
    configs = list(dict.fromkeys(made))
    if net.parameters is None:
        return configs
    return [min(configs, key=lambda one: abs(math.log(one.num_parameters / (net.parameters or 1))))]


def memory_needed(config: Config, *, micro_batch: int, bytes_per_value: int) -> Memory:
    """Memory for training: float32 weights, gradients and two moments, and `micro_batch` full rows of activations."""
    weights = config.num_parameters * (4 * 4 + (bytes_per_value if bytes_per_value < 4 else 0))
    family = _family(config.model_type.removeprefix("rung-lm-"))
    return Memory(weights, micro_batch * config.window * family.activation_bytes(config, bytes_per_value))


def net_values(config: Config) -> dict[str, Any]:
    """The recipe's `net` values that give exactly this shape."""
    family = _family(config.model_type.removeprefix("rung-lm-"))
    return {name: getattr(config, name) for name in family.RECIPE_FIELDS}


def shape_in_words(net: NetSection) -> str:
    """A network's shape in a few words, from a recipe without gaps."""
    parts = [
        (net.num_hidden_layers, "{} layers" if net.num_hidden_layers != 1 else "1 layer"),
        (net.hidden_size, "hidden size {}"),
        (net.embedding_size, "embeddings of {}"),
        (net.max_position_embeddings, "context {}"),
        (net.backpropagate_through, "gradients through {} tokens"),
    ]
    return ", ".join(words.format(value) for value, words in parts if value is not None)


def _family(name: str) -> Any:
    name = "decoder" if name in FAMILIES["decoders"] else name
    if name not in _FAMILIES:
        raise PlanError(f"a network of the family {name} is not planned by steps and minutes")
    return _FAMILIES[name]
