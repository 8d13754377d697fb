"""Which feed-forward shapes the plan chooses between, and what each needs of memory."""

from __future__ import annotations

from collections.abc import Sequence

from rung.nets.feedforward_language_model import FeedForwardLMConfig
from rung.recipe import NetSection

FeedForwardSize = tuple[int, int]
# (hidden_size, embedding_size)
LADDER: tuple[FeedForwardSize, ...] = (
    (128, 32),
    (192, 48),
    (256, 64),
    (384, 96),
    (512, 128),
    (768, 192),
    (1024, 256),
    (1536, 256),
    (2048, 384),
    (3072, 512),
)
CONTEXT_FIELD = "max_position_embeddings"
COMPILES = False  # nothing is measured to be gained
# In 220 steps 5 tokens of 2 bytes did better than 11 (2.50 against 2.52 bits per byte); longer runs want more.
_BYTES_IN_SIGHT = 16.0
_FEWEST_TOKENS, _MOST_TOKENS = 5, 24  # in sight; Bengio et al. looked at 4 words and predicted the next
RECIPE_FIELDS = (
    "hidden_size",
    "embedding_size",
    "max_position_embeddings",
    "tie_word_embeddings",
    "direct_connections",
)


def context(net: NetSection, tokens: float, bytes_per_token: float) -> int:  # noqa: ARG001 - as of all families
    """Tokens that the network looks at, about a few words whatever the tokens are."""
    wanted = round(_BYTES_IN_SIGHT / bytes_per_token)
    return net.max_position_embeddings or min(_MOST_TOKENS, max(_FEWEST_TOKENS, wanted))


def learning_rate_factor(net: NetSection) -> float:  # noqa: ARG001 - as of all families
    """Times the optimiser's default learning rate, that of decoders; 0.015 and 0.04 of AdamW's were equally good."""
    return 4.0


def ladder() -> Sequence[FeedForwardSize]:
    """The sizes that a plan chooses between."""
    return LADDER


def every_size() -> Sequence[FeedForwardSize]:
    """Sizes in small steps, for a number of parameters that is asked for."""
    return [(width, width // 4) for width in [*range(64, 1024, 16), *range(1024, 4097, 128)]]


def config(
    net: NetSection, size: FeedForwardSize, *, vocab_size: int, context: int, eos_token_id: int
) -> FeedForwardLMConfig:
    """The shape of this size with what the recipe fixes put in its place."""
    return FeedForwardLMConfig(
        vocab_size=vocab_size,
        embedding_size=net.embedding_size or size[1],
        hidden_size=net.hidden_size or size[0],
        max_position_embeddings=context,
        eos_token_id=eos_token_id,
        tie_word_embeddings=True if net.tie_word_embeddings is None else net.tie_word_embeddings,
        direct_connections=bool(net.direct_connections),
    )


def activation_bytes(config: FeedForwardLMConfig, bytes_per_value: int) -> int:
    """Bytes that one token keeps for the backward pass: x before and after dropout, hidden units, features."""
    return bytes_per_value * (3 * config.input_size + 4 * config.hidden_size + 2 * config.output_size)
