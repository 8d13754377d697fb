"""Which decoder shapes the plan chooses between, and what each needs of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rung.errors import PlanError
from rung.nets.decoder_config import DecoderConfig
from rung.recipe import NetSection

# (hidden_size, num_hidden_layers): the width grows with the depth at about 48 per layer for the small ones and 64 for
# the large ones (nanochat's aspect), every width a multiple of the head size of 64.
LADDER = (
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


@dataclass(frozen=True)
class Memory:
    """Bytes that training needs at once, by where they go."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.activations


def candidate_configs(net: NetSection, *, vocab_size: int, context: int, eos_token_id: int) -> list[DecoderConfig]:
    """Every shape of the ladder with what the recipe fixes put in its place, smallest first, no shape twice."""
    configs = [
        _config(net, hidden, layers, vocab_size=vocab_size, context=context, eos_token_id=eos_token_id)
        for hidden, layers in LADDER
    ]
    return list(dict.fromkeys(configs))


def _config(
    net: NetSection, hidden: int, layers: int, *, vocab_size: int, context: int, eos_token_id: int
) -> DecoderConfig:
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


def memory_needed(config: DecoderConfig, *, micro_batch: int, bytes_per_value: int) -> Memory:
    """Memory for training: float32 weights, gradients and two moments, and `micro_batch` full contexts of activations.

    Activations per token and layer: ten vectors of the hidden size and five of the intermediate size are kept for the
    backward pass, and the attention weights of a causal half square in two copies.
    """
    weights = config.num_parameters * (4 * 4 + (bytes_per_value if bytes_per_value < 4 else 0))
    per_layer = bytes_per_value * (10 * config.hidden_size + 5 * config.intermediate_size)
    per_layer += config.num_attention_heads * config.max_position_embeddings * (2 + bytes_per_value)
    tokens = micro_batch * config.max_position_embeddings
    return Memory(weights, tokens * config.num_hidden_layers * per_layer)


def net_values(config: DecoderConfig) -> dict[str, Any]:
    """The recipe's `net` values that give exactly this shape."""
    names = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "max_position_embeddings",
        "tie_word_embeddings",
    )
    return {name: getattr(config, name) for name in names}
