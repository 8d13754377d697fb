"""The real decoder, its own precision, its own folders: a resumed run equals an uninterrupted one bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_toy import VOCABULARY, ToyBatches, toy_settings, weights

from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.pretrained import load_net, save_net
from rung.objectives.next_token import NextToken
from rung.training.checkpoint import Checkpoint, load_checkpoint
from rung.training.loop import train
from rung.training.optimizers import build_optimizer

CONFIG = DecoderConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=16,
)


def run(folder: Path, dtype: torch.dtype, resume: Checkpoint | None = None) -> Path:
    if resume is None:
        net = CausalLM(CONFIG, dropout=0.2, generator=torch.Generator().manual_seed(0))
    else:
        net = load_net(resume.folder, dropout=0.2)
    net.compute_dtype = dtype
    return train(
        net,
        NextToken(),
        ToyBatches(),
        build_optimizer(net, name="muon", learning_rate=0.02, weight_decay=0.1),
        toy_settings(12),
        run_folder=folder,
        save_model=lambda folder: save_net(net, folder),
        header={},
        resume=resume,
    ).checkpoint


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_decoder_equals_an_uninterrupted_one(tmp_path: Path, dtype: torch.dtype) -> None:
    straight = run(tmp_path, dtype)
    expected = weights(straight)
    assert weights(run(tmp_path, dtype, load_checkpoint(tmp_path / "checkpoints/step-00000006"))) == expected
