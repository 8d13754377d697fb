"""Networks without values: shapes as always, and nothing loaded that only drawing values would need."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from rung.nets.blank import without_values

LOAD = """
import sys
import torch
from rung.nets.classifier import build_classifier
from rung.nets.decoder_config import DecoderConfig
from rung.nets.recurrent import RecurrentConfig
decoder = DecoderConfig(
    vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=32,
)
for config in (RecurrentConfig(vocab_size=50, cell="lstm", embedding_size=8, hidden_size=8), decoder):
    drawn = build_classifier(config, 2)
    build_classifier(config, 2, tensors=drawn.state_dict())
print("torch._dynamo" in sys.modules)
"""


def test_parameters_have_shapes_and_no_memory() -> None:
    with without_values():
        net = nn.Sequential(nn.Embedding(1000, 8), nn.LSTM(8, 4), nn.Linear(4, 2))
    assert {parameter.device.type for parameter in net.parameters()} == {"meta"}
    assert net[0].weight.shape == (1000, 8)
    assert torch.nn.init.ones_(torch.empty(2)).tolist() == [1, 1]  # and afterwards values are set again


def test_stored_networks_are_loaded_without_the_compiler_of_torch() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
