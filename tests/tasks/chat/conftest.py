"""A tiny decoder as a base, and conversations of a made-up game that it can learn in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rung.data.tokenizer import train_tokenizer
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.pretrained import save_net

WORDS = ["sun", "moon", "star", "sea", "wind", "rain", "snow", "fire", "tree", "bird", "fish", "stone"]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers opens: 2 layers, bytes as tokens, no chat template."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer(["the game of words"], kind="byte", vocab_size=257)
    config = DecoderConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=160,
        eos_token_id=tokenizer.eos_token_id,
    )
    net = CausalLM(config, generator=torch.Generator().manual_seed(1))
    save_net(net, folder)
    tokenizer.save(folder, model_max_length=160)
    return folder


@pytest.fixture(scope="session")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty conversations: the assistant repeats the last word, once a turn."""
    path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    rows = []
    for number in range(60):
        first, second = WORDS[number % 12], WORDS[(number * 7 + number // 12) % 12]
        turns = [("user", f"{second} {first}"), ("assistant", first)]
        if number % 3 == 0:
            turns += [("user", f"{first} {number} {second}"), ("assistant", second)]
        if number % 5 == 0:
            turns.insert(0, ("system", "Repeat the last word."))
        rows.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
