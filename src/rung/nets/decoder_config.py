"""The shape of a decoder in Hugging Face's spelling, and its `config.json`, read strictly: no key is ignored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rung.errors import RunFolderError
from rung.nets.architectures import unsupported
from rung.nets.language_model_config import WholeContext
from rung.nets.rope import RopeScaling
from rung.nets.strict_config import NO_EFFECT, OF_GENERATION, build_config, check_keys, check_values, is_number

ARCHITECTURES = {
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}

# Keys that say something about computing which we implement in one way only: any other value is refused.
_ONLY_VALUE: dict[str, Any] = {
    "hidden_act": "silu",
    "rope_interleaved": False,
    "use_mrope": False,
    "use_sliding_window": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
}
# Keys that do not change what the network computes. `max_window_layers`, and outside of Mistral `sliding_window`, mean
# nothing unless `use_sliding_window` is true, which the table above refuses; dropout is a matter of training, and
# `pretraining_tp` of how training cut its products.
_NO_EFFECT = frozenset(
    {
        *NO_EFFECT,
        *OF_GENERATION,
        *("attention_dropout", "chunk_size_feed_forward", "is_llama_config", "max_window_layers", "pretraining_tp"),
    }
)
_READ = frozenset({"rope_theta", "rope_parameters", "layer_types"})
# Properties that some families have not, in transformers either.
_ONLY_FOR = {
    "attention_bias": ("qwen3", "llama"),
    "mlp_bias": ("llama",),
    "sliding_window": ("mistral",),
}
_MISTRAL_WINDOW = 4096  # what transformers takes where a Mistral folder has no `sliding_window`


@dataclasses.dataclass(frozen=True)
class DecoderConfig(WholeContext):
    """A decoder's shape. `model_type` decides the family.

    "qwen3" norms queries and keys; "llama" does not; "mistral" is a llama whose tokens see the last `sliding_window`
    tokens only (None: all); "qwen2" is a llama with a bias on q, k and v. `attention_bias` puts one on q, k, v and o
    of qwen3 and llama, `mlp_bias` one on the products of llama's MLP.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    model_type: str = "qwen3"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    rope_scaling: RopeScaling | None = None
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built (RunFolderError: such shapes come from a `config.json`)."""
        if self.model_type not in ARCHITECTURES:
            raise unsupported(self.model_type, "decoder config")
        check_values(self)
        if self.rope_theta <= 1:
            raise RunFolderError(f"rope_theta must be above 1, not {self.rope_theta}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise RunFolderError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}",
                hint="every key and value head serves the same number of query heads",
            )
        if self.head_dim % 2:
            raise RunFolderError(f"head_dim must be even for rotary positions, not {self.head_dim}")
        for name, families in _ONLY_FOR.items():
            if getattr(self, name) and self.model_type not in families:
                problem = f"{name} is not supported for '{self.model_type}'"
                raise RunFolderError(problem, hint=f"for {', '.join(families)} it is")
        if self.model_type == "qwen2" and self.head_dim * self.num_attention_heads != self.hidden_size:
            raise RunFolderError(f"qwen2 needs head_dim = hidden_size / num_attention_heads, not {self.head_dim}")

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised per head."""
        return self.model_type == "qwen3"

    @property
    def qkv_bias(self) -> bool:
        """Whether the query, key and value projections have a bias."""
        return self.attention_bias or self.model_type == "qwen2"

    @property
    def o_bias(self) -> bool:
        """Whether the attention's output projection has a bias."""
        return self.attention_bias and self.model_type != "qwen2"

    @property
    def num_matmul_parameters(self) -> int:
        """Parameters that take part in matrix products: the hidden matrices and the output matrix, also when tied."""
        heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        layer = self.hidden_size * (heads * self.head_dim + 3 * self.intermediate_size)
        return self.num_hidden_layers * layer + self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters, a tied matrix counted once."""
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        biases = (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim if self.qkv_bias else 0
        biases += self.hidden_size if self.o_bias else 0
        biases += 2 * self.intermediate_size + self.hidden_size if self.mlp_bias else 0
        untied = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self.num_matmul_parameters + untied + self.num_hidden_layers * (norms + biases) + self.hidden_size

    @property
    def matrix_shapes(self) -> frozenset[tuple[int, int]]:
        """(in, out) features of the products of a forward pass, the narrow ones of keys and values left out."""
        hidden, inner = self.hidden_size, self.intermediate_size
        widths = {self.num_attention_heads * self.head_dim, inner}
        both_ways = {(hidden, width) for width in widths} | {(width, hidden) for width in widths}
        return frozenset(both_ways | {(hidden, self.vocab_size)})

    def flops_per_token(self, context: int) -> float:
        """Floating-point operations to train on one token: 6 per matmul parameter, plus causal attention's products.

        12 x layers x width x context / 2: two products of 2 operations each, times 3 for forward and backward, over the
        half of the (context x context) square that a causal mask leaves; width is that of all heads together.
        """
        attention = 12 * self.num_hidden_layers * self.num_attention_heads * self.head_dim * context / 2
        return 6 * self.num_matmul_parameters + attention

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """Return the `config.json` object, in the spellings of transformers 4 (which vLLM reads too) and of 5."""
        fields = dataclasses.asdict(self)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = fields.pop(name)
            if value is not None:
                fields[name] = list(value) if isinstance(value, tuple) else value
        for name, families in _ONLY_FOR.items():
            if self.model_type not in families:
                del fields[name]
        if self.model_type == "qwen2":
            del fields["head_dim"]
        scaling = self.rope_scaling.to_hf() if self.rope_scaling else None
        fields["rope_scaling"] = scaling
        return {
            "architectures": [ARCHITECTURES[self.model_type]],
            **fields,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "attention_dropout": 0.0,
            "use_cache": True,
            "rope_parameters": {**(scaling or {"rope_type": "default"}), "rope_theta": self.rope_theta},
            "torch_dtype": dtype,
            "dtype": dtype,
        }

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, where: str = "config.json") -> DecoderConfig:
        """Read a `config.json` object. RunFolderError names the key that is missing, unknown or not supported."""
        model_type = config.get("model_type")
        if model_type not in ARCHITECTURES:
            raise unsupported(str(model_type), where, usable=tuple(ARCHITECTURES))
        names = {field.name for field in dataclasses.fields(cls)}
        check_keys(config, names | _READ | _NO_EFFECT, _ONLY_VALUE, where)
        kinds = config.get("layer_types") or []
        if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
            problem = f"layer_types {kinds!r:.80} are not supported"
            raise RunFolderError(problem, where=where, hint="only full_attention is")
        values: dict[str, Any] = {name: config[name] for name in names if config.get(name) is not None}
        values["rope_theta"], values["rope_scaling"] = _rope(config, where)
        values.setdefault("tie_word_embeddings", False)
        _fill_family_defaults(values, config)
        return build_config(cls, with_tokens(values), where)


def with_tokens(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with special tokens as configurations hold them: several as a tuple; -1, as in LLaMA's, for none."""
    found = dict(values)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if found.get(name) == -1:
            del found[name]
    if isinstance(found.get("eos_token_id"), list):
        found["eos_token_id"] = tuple(found["eos_token_id"])
    return found


def _rope(config: Mapping[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """Theta and scaling, from `rope_parameters` (transformers 5), or `rope_scaling` and `rope_theta` (4), or both."""
    spellings = [config[key] for key in ("rope_parameters", "rope_scaling") if config.get(key)]
    if wrong := [spelling for spelling in spellings if not isinstance(spelling, dict)]:
        raise RunFolderError(f"rope_parameters must be an object, not {wrong[0]!r:.80}", where=where)
    told = [value for source in (*spellings, config) if (value := source.get("rope_theta")) is not None]
    if wrong := [value for value in told if not is_number(value)]:
        raise RunFolderError(f"rope_theta must be a number, not {wrong[0]!r:.80}", where=where)
    thetas = set(map(float, told))
    longest = config.get("max_position_embeddings")
    scalings = {RopeScaling.from_hf(each, max_position_embeddings=longest, where=where) for each in spellings}
    if len(thetas) > 1 or len(scalings) > 1:
        raise RunFolderError(
            f"rope_theta, rope_parameters and rope_scaling disagree: {sorted(thetas)}, {spellings!r:.300}",
            where=where,
            hint="make all the same, or leave out all but one",
        )
    return thetas.pop() if thetas else 10_000.0, scalings.pop() if scalings else None


def _fill_family_defaults(values: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Fill what the family's own configuration class in transformers fills when the key is absent or null."""
    heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
    if (
        heads
        and "num_key_value_heads" not in values
        and (values["model_type"] in ("llama", "mistral") or "num_key_value_heads" in config)
    ):
        values["num_key_value_heads"] = heads
    if "head_dim" not in values:
        if values["model_type"] == "qwen3":
            values["head_dim"] = 128
        elif isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
            values["head_dim"] = hidden // heads
    if values["model_type"] != "mistral":
        values.pop("sliding_window", None)
    elif "sliding_window" not in config:
        values["sliding_window"] = _MISTRAL_WINDOW
