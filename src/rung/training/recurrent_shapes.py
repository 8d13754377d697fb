"""Which recurrent shapes the plan chooses between, and what each needs of memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from rung.nets.recurrent_language_model import Cell, RecurrentLMConfig
from rung.recipe import NetSection

RecurrentSize = tuple[int, int]
# (hidden_size, num_hidden_layers): one wide layer learns faster than two narrow ones in the minutes of a small net.
LADDER: tuple[RecurrentSize, ...] = (
    (64, 1),
    (128, 1),
    (192, 1),
    (256, 1),
    (384, 1),
    (512, 1),
    (768, 1),
    (1024, 2),
    (1536, 2),
    (2048, 3),
)
CONTEXT_FIELD = "backpropagate_through"
COMPILES = False  # torch does not compile through its own recurrent layers
_BACKPROPAGATE_THROUGH = 64  # tokens; Merity et al. 2018 took 70
RECIPE_FIELDS = (
    "hidden_size",
    "embedding_size",
    "num_hidden_layers",
    "backpropagate_through",
    "tie_word_embeddings",
)
# Muon, 256 features, 220 steps of 2,048 tokens on twenty novels: an LSTM reached 2.23 bits per byte at 0.04 and 2.36 at
# 0.1; an RNN 2.35 at 0.02, and at 0.05 it diverged: no gate bounds what its recurrent matrix does to a state.
_RATE_FACTORS: dict[str, float] = {"rnn": 1.5, "lstm": 4.0, "gru": 4.0}
_GATES: dict[Cell, int] = {"rnn": 1, "gru": 3, "lstm": 4}
_WIDEST_EMBEDDING = 256  # beyond, embeddings have half the hidden size: scores cost less, and a projection is small


def context(net: NetSection, tokens: float, bytes_per_token: float) -> int:  # noqa: ARG001 - as of all families
    """Tokens that gradients run back through; the state reaches further."""
    return net.backpropagate_through or _BACKPROPAGATE_THROUGH


def learning_rate_factor(net: NetSection) -> float:
    """Times the optimiser's default learning rate, that of decoders."""
    return _RATE_FACTORS[net.family]


def ladder() -> Sequence[RecurrentSize]:
    """The sizes that a plan chooses between."""
    return LADDER


def every_size() -> Sequence[RecurrentSize]:
    """Sizes in small steps, for a number of parameters that is asked for, all of one layer: no jump between depths."""
    return [(width, 1) for width in [*range(32, 512, 16), *range(512, 4097, 64)]]


def config(
    net: NetSection, size: RecurrentSize, *, vocab_size: int, context: int, eos_token_id: int
) -> RecurrentLMConfig:
    """The shape of this size with what the recipe fixes put in its place."""
    hidden = net.hidden_size or size[0]
    return RecurrentLMConfig(
        cell=cast(Cell, net.family),
        vocab_size=vocab_size,
        embedding_size=net.embedding_size or min(hidden, max(_WIDEST_EMBEDDING, hidden // 2)),
        hidden_size=hidden,
        num_hidden_layers=net.num_hidden_layers or size[1],
        eos_token_id=eos_token_id,
        tie_word_embeddings=True if net.tie_word_embeddings is None else net.tie_word_embeddings,
        backpropagate_through=context,
    )


def activation_bytes(config: RecurrentLMConfig, bytes_per_value: int) -> int:
    """Bytes that one token keeps for the backward pass: gates twice, states and what dropout leaves of the output."""
    layer = (2 * _GATES[config.cell] + 2 * config.state_parts + 2) * config.hidden_size
    return bytes_per_value * (config.num_hidden_layers * layer + 4 * config.embedding_size)
