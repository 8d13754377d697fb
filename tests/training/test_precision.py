"""Probes of the machine: page faults with and without the allocator setting, and the peak's definition."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from rung.nets.decoder_config import DecoderConfig
from rung.training import precision

CHURN = """
import resource, sys
import torch
from rung.training.precision import tune_allocator
if sys.argv[1] == "tuned":
    tune_allocator()
def churn():
    for _ in range(5):
        torch.ones(16 * 2**20)  # 64 MiB: by default given back to the system at once, and mapped anew
for _ in range(3):  # with a single thread the heap takes a few rounds to reach its size
    churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator can be told")
def test_freed_memory_is_kept() -> None:
    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", CHURN, mode], capture_output=True, check=True, text=True).stdout
        )
        for mode in ("default", "tuned")
    }
    assert faults["tuned"] < 0.05 * faults["default"]


def test_the_peak_is_the_best_rate_of_the_nets_own_products(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DecoderConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=16,
    )
    rates = {(32, 16): 1e9, (16, 32): 2e9, (32, 96): 7e9, (96, 32): 5e9, (32, 100): 3e9}

    def seconds(rows: int, inner: int, columns: int, dtype: torch.dtype, _device: torch.device) -> float:
        assert (rows, dtype) == (64, torch.bfloat16)
        return 2 * rows * inner * columns / rates[inner, columns]

    monkeypatch.setattr(precision, "_product_seconds", seconds)
    assert precision.matmul_peak(config, 64, torch.bfloat16, torch.device("cpu")) == pytest.approx(7e9)


@pytest.mark.parametrize("bf16_seconds", [0.5, 2.0])
def test_bfloat16_is_chosen_by_measurement(bf16_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        precision, "_product_seconds", lambda *shape: bf16_seconds if shape[3] == torch.bfloat16 else 1.0
    )
    assert precision.bf16_is_faster(torch.device("cpu")) == (bf16_seconds < 1)
