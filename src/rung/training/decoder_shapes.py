"""Which decoder shapes the plan chooses between, and what each needs of memory."""

from __future__ import annotations

from collections.abc import Sequence

from rung.errors import PlanError
from rung.nets.decoder_config import DecoderConfig
from rung.recipe import NetSection

# (hidden_size, num_hidden_layers): the width grows with the depth at about 48 per layer for the small ones and 64 for
# the large ones (nanochat's aspect), every width a multiple of the head size of 64.
DecoderSize = tuple[int, int]
LADDER: tuple[DecoderSize, ...] = (
    (64, 2),
    (128, 3),
    (192, 4),
    (256, 5),
    (320, 6),
    (384, 6),
    (512, 8),
    (640, 10),
    (768, 12),
    (1024, 16),
    (1280, 20),
    (1536, 24),
)
_UNTIED_FROM = 768  # tied while the vocabulary would hold a large share of the parameters, as SmolLM3 does


COMPILES = True
CONTEXT_FIELD = "max_position_embeddings"
_CONTEXT_UP_TO_TOKENS = ((8e6, 128), (1e8, 256), (2e9, 512))
_LONGEST_CONTEXT = 1024
RECIPE_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
    "tie_word_embeddings",
)


def context(net: NetSection, tokens: float, bytes_per_token: float) -> int:  # noqa: ARG001 - as of all families
    """Positions: short contexts give short runs more steps; longer ones pay with enough text to learn from them."""
    fitting = (size for most, size in _CONTEXT_UP_TO_TOKENS if tokens <= most)
    return net.max_position_embeddings or next(fitting, _LONGEST_CONTEXT)


def learning_rate_factor(net: NetSection) -> float:  # noqa: ARG001 - as of all families
    """Times the optimiser's default learning rate."""
    return 1.0


def ladder() -> Sequence[DecoderSize]:
    """The sizes that a plan chooses between."""
    return LADDER


def every_size() -> Sequence[DecoderSize]:
    """Sizes in small steps, for a number of parameters that is asked for; as deep as the ladder is at that width."""
    widths = [*range(32, 512, 16), *range(512, 1537, 64)]
    return [(width, min(LADDER, key=lambda size: abs(size[0] - width))[1]) for width in widths]


def config(net: NetSection, size: DecoderSize, *, vocab_size: int, context: int, eos_token_id: int) -> DecoderConfig:
    """The shape of this size with what the recipe fixes put in its place. PlanError for heads that cannot be shared."""
    hidden, layers = size
    hidden = net.hidden_size or hidden
    head_dim = net.head_dim or (hidden // net.num_attention_heads if net.num_attention_heads else _head_dim(hidden))
    heads = net.num_attention_heads or max(1, hidden // head_dim)
    key_value_heads = net.num_key_value_heads or _shared_heads(heads)
    if heads % key_value_heads:
        raise PlanError(
            f"{heads} attention heads cannot share {key_value_heads} key-value heads",
            hint="set net.num_key_value_heads to a divisor of net.num_attention_heads",
        )
    tied = net.tie_word_embeddings if net.tie_word_embeddings is not None else hidden < _UNTIED_FROM
    return DecoderConfig(
        model_type=net.model_type,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=net.intermediate_size or round(hidden * 8 / 3 / 64) * 64 or 64,
        num_hidden_layers=net.num_hidden_layers or layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=head_dim,
        max_position_embeddings=context,
        rope_theta=10_000.0 if context <= 2048 else 100_000.0,
        tie_word_embeddings=tied,
        bos_token_id=eos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
    )


def _head_dim(hidden: int) -> int:
    """64, or the largest even divisor below it; 128 for wide nets."""
    largest = 128 if hidden >= 1024 else 64
    return next((size for size in range(min(largest, hidden), 1, -1) if hidden % size == 0 and size % 2 == 0), hidden)


def _shared_heads(heads: int) -> int:
    """Every head its own keys and values in small nets; in larger ones about three queries share them."""
    if heads < 9:
        return heads
    return max(divisor for divisor in range(1, heads // 3 + 1) if heads % divisor == 0)


def activation_bytes(config: DecoderConfig, bytes_per_value: int) -> int:
    """Bytes that one token keeps for the backward pass.

    A layer keeps ten vectors of the hidden size and five of the intermediate size, and the attention weights of a
    causal half square in two copies.
    """
    per_layer = bytes_per_value * (10 * config.hidden_size + 5 * config.intermediate_size)
    per_layer += config.num_attention_heads * config.max_position_embeddings * (2 + bytes_per_value)
    return config.num_hidden_layers * per_layer
