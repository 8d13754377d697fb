"""A small tokenizer, a network with random weights, and texts of which some continue one another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rung.data.shards import EncodedDocuments, TokenShards, write_shards
from rung.data.tokenizer import Tokenizer, train_tokenizer
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig

Text = tuple[str, bool]

TEXTS: list[Text] = [
    ("The ladder has many rungs; climb only as high as you need. " * 4, False),
    ("Naïve Bayes counts wörds — and that is often enough. " * 3, True),
    ("x", True),
    ("A second text, short.", False),
    ("A second text, short.", False),  # a repeat: its id must differ
    ("第三の文章です。" * 5, False),
    ("and this goes on from there, for a while and a little longer than the context. " * 3, True),
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter([text for text, _ in TEXTS]), kind="bpe", vocab_size=300)


@pytest.fixture
def to_shards(tmp_path: Path) -> Callable[[Tokenizer, list[Text]], TokenShards]:
    """Tokenise texts and write them as shards, a new folder each time."""

    def write(tokenizer: Tokenizer, texts: list[Text]) -> TokenShards:
        tokens = tokenizer.encode_batch([text for text, _ in texts])
        digests = [hashlib.sha256(text.encode()).digest() for text, _ in texts]
        batch = EncodedDocuments(
            tokens=np.concatenate(tokens),
            lengths=np.array([len(ids) for ids in tokens]),
            nbytes=np.array([len(text.encode()) for text, _ in texts]),
            sha256=np.stack([np.frombuffer(digest, np.uint8) for digest in digests]),
            continues=np.array([continues for _, continues in texts]),
        )
        return write_shards(
            tmp_path / f"shards-{len(list(tmp_path.iterdir()))}",
            [batch],
            tokenizer_sha256=tokenizer.sha256,
            eos_token_id=tokenizer.eos_token_id,
            vocab_size=tokenizer.vocab_size,
            shard_tokens=37,  # small, so that windows cross the borders of shards
        )

    return write


@pytest.fixture
def shards(to_shards: Callable[[Tokenizer, list[Text]], TokenShards], tokenizer: Tokenizer) -> TokenShards:
    return to_shards(tokenizer, TEXTS)


@pytest.fixture(scope="session")
def texts() -> list[Text]:
    """Texts, and whether each continues the one before it."""
    return TEXTS


@pytest.fixture(scope="session")
def net(tokenizer: Tokenizer) -> CausalLM:
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size + 4,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=24,
    )
    generator = torch.Generator().manual_seed(0)
    net = CausalLM(config, dropout=0.5, generator=generator)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return net
