"""How llama.cpp names and turns the tensors of a Hugging Face network in a GGUF file: one table for both directions.

Sources: `gguf/constants.py` (names) and llama.cpp's `convert_hf_to_gguf.py` (what is permuted and transposed).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_GLU_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GLU_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


@dataclass(frozen=True)
class Layout:
    """One GGUF architecture. Names are stems: `.weight` and `.bias` are the same on both sides.

    `layer_prefix` stands before the number of a layer in Hugging Face's names. `turned` are the stems within a layer
    whose matrices Hugging Face keeps as (in, out), GPT-2's Conv1D. `rotary_pairs`: queries and keys are stored with the
    two halves of each head interleaved, as llama's rotation in ggml wants them.
    """

    outside: Mapping[str, str]
    layer: Mapping[str, str]
    layer_prefix: str
    turned: frozenset[str] = frozenset()
    rotary_pairs: bool = False

    def hf_name(self, name: str) -> str | None:
        """Hugging Face's name of a GGUF tensor, or None when this architecture has no such tensor."""
        stem, _, suffix = name.rpartition(".")
        found = _LAYER.fullmatch(stem)
        own = self.layer.get(found[2]) if found else self.outside.get(stem)
        if own is None or suffix not in ("weight", "bias"):
            return None
        return f"{self.layer_prefix}{found[1]}.{own}.{suffix}" if found else f"{own}.{suffix}"

    def gguf_name(self, name: str) -> str | None:
        """GGUF's name of a Hugging Face tensor, or None when this architecture has no such tensor."""
        stem, _, suffix = name.rpartition(".")
        if stem.startswith(self.layer_prefix):
            number, _, own = stem.removeprefix(self.layer_prefix).partition(".")
            short = next((short for short, long in self.layer.items() if long == own), None)
            return f"blk.{number}.{short}.{suffix}" if short else None
        short = next((short for short, long in self.outside.items() if long == stem), None)
        return f"{short}.{suffix}" if short else None

    def is_turned(self, name: str) -> bool:
        """Whether the GGUF tensor `name` is the transpose of Hugging Face's."""
        found = _LAYER.fullmatch(name.removesuffix(".weight"))
        return name.endswith(".weight") and found is not None and found[2] in self.turned

    def heads_interleaved(self, name: str) -> str | None:
        """ "q" or "k" when the GGUF tensor `name` has the halves of its heads interleaved, else None."""
        found = _LAYER.fullmatch(name.rpartition(".")[0])
        if not self.rotary_pairs or found is None or found[2] not in ("attn_q", "attn_k"):
            return None
        return found[2][-1]


LAYOUTS: dict[str, Layout] = {
    "llama": Layout(_GLU_OUTSIDE, _GLU_LAYER, "model.layers.", rotary_pairs=True),
    "qwen2": Layout(_GLU_OUTSIDE, _GLU_LAYER, "model.layers."),
    "qwen3": Layout(_GLU_OUTSIDE, _GLU_LAYER, "model.layers."),
    "gpt2": Layout(
        {
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        "transformer.h.",
        turned=frozenset({"attn_qkv", "attn_output", "ffn_up", "ffn_down"}),
    ),
    "bert": Layout(
        {
            "token_embd": "embeddings.word_embeddings",
            "position_embd": "embeddings.position_embeddings",
            "token_types": "embeddings.token_type_embeddings",
            "token_embd_norm": "embeddings.LayerNorm",
        },
        {
            "attn_q": "attention.self.query",
            "attn_k": "attention.self.key",
            "attn_v": "attention.self.value",
            "attn_output": "attention.output.dense",
            "attn_output_norm": "attention.output.LayerNorm",
            "ffn_up": "intermediate.dense",
            "ffn_down": "output.dense",
            "layer_output_norm": "output.LayerNorm",
        },
        "encoder.layer.",
    ),
}


def interleave_heads(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from halves (Hugging Face) to pairs (ggml's llama): `permute` in convert_hf_to_gguf.py."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:]).transpose(1, 2).flatten(0, 2)


def separate_heads(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The inverse of `interleave_heads`."""
    return weight.reshape(heads, len(weight) // heads // 2, 2, *weight.shape[1:]).transpose(1, 2).flatten(0, 2)
