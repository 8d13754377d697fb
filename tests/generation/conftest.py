"""Tiny networks with random weights, and a tokenizer of bytes that fits them."""

from __future__ import annotations

import pytest
import torch

from rung.data.tokenizer import Tokenizer, train_tokenizer
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.gpt2 import GPT2LM, GPT2Config
from rung.nets.rope import RopeScaling

SHAPES = {
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2},
    "qwen3-mha": {"model_type": "qwen3", "num_key_value_heads": 4, "attention_bias": True},
    "llama": {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": False},
    "llama-biases": {"model_type": "llama", "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "llama-yarn": {
        "model_type": "llama",
        "num_key_value_heads": 2,
        "rope_scaling": RopeScaling("yarn", 4.0, original_max_position_embeddings=16),
    },
    "mistral-window": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 9},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
}


def random_net(shape: str) -> CausalLM | GPT2LM:
    generator = torch.Generator().manual_seed(len(shape))
    # Norms with a large epsilon, so that a wrong place for it shows.
    sizes = {
        "vocab_size": 272,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    net: CausalLM | GPT2LM
    if shape == "gpt2":
        net = GPT2LM(GPT2Config(**sizes, layer_norm_epsilon=1e-3), generator=generator)
    else:
        net = CausalLM(DecoderConfig(**sizes, head_dim=16, rms_norm_eps=1e-3, **SHAPES[shape]), generator=generator)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return net


@pytest.fixture(scope="session", params=[*SHAPES, "gpt2"])
def any_net(request: pytest.FixtureRequest) -> CausalLM | GPT2LM:
    """Each family in turn."""
    return random_net(request.param)


@pytest.fixture(scope="session")
def net() -> CausalLM | GPT2LM:
    return random_net("qwen3")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter([]), kind="byte", vocab_size=257)
