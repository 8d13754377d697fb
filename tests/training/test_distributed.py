"""Two gloo processes under torchrun train what one process trains, and never disagree on what to do next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_toy import ToyBatches, toy_net, toy_objective, toy_run, toy_settings

from rung.training.checkpoint import load_checkpoint
from rung.training.distributed import alone
from rung.training.validation import mean_loss

Told = tuple[Path, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The folder in which two ranks trained, and what each of them told. One launch: starting costs the most."""
    folder = tmp_path_factory.mktemp("ranks")
    toy_run(folder / "begun", toy_settings())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    source = Path(__file__).resolve().parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    program = [*launch, str(Path(__file__).with_name("two_ranks.py")), str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_the_ranks_agree_on_everything(two_ranks: Told) -> None:
    """Weights by their hash, skipped steps, endings, revised horizons, validation."""
    _, (first, second) = two_ranks
    assert first == second


def log_lines(run_folder: Path, key: str) -> list[Any]:
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def losses(run_folder: Path) -> list[float]:
    return log_lines(run_folder, "loss")


def distance(first: Path, second: Path) -> float:
    """The norm of the difference of all weights over the norm of the weights."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (first, second))
    difference, size = (
        torch.stack([torch.linalg.norm(tensor) for tensor in tensors]).norm()
        for tensors in ([ours[name] - theirs[name] for name in ours], theirs.values())
    )
    return float(difference / size)


@pytest.mark.parametrize("micro_batch_size", [32, 1])
def test_two_ranks_of_16_are_one_of_32_and_32_micro_batches_of_1(
    two_ranks: Told, tmp_path: Path, micro_batch_size: int
) -> None:
    settings = toy_settings(8, batch_size=32, micro_batch_size=micro_batch_size)
    single = toy_run(tmp_path, settings, dropout=0.0)
    folder, _ = two_ranks
    assert losses(tmp_path) == pytest.approx(losses(folder / "fresh"), rel=1e-6)
    assert distance(single.checkpoint, folder / "fresh/checkpoints/step-00000008") < 1e-6


def test_the_main_rank_tells_the_vital_signs_of_the_whole_batch(two_ranks: Told, tmp_path: Path) -> None:
    toy_run(tmp_path, toy_settings(8, batch_size=32, micro_batch_size=32, vital_signs_every=2), dropout=0.0)
    folder, _ = two_ranks
    alone_signs, shared = (log_lines(run, "vital_signs") for run in (tmp_path, folder / "fresh"))
    assert len(alone_signs) == len(shared) == 5
    for one, other in zip(alone_signs, shared, strict=True):
        for name, found in one["layers"].items():
            # To the four digits that are written; the mean of what is nearly zero on average has fewer.
            assert {k: v for k, v in found.items() if k != "mean"} == pytest.approx(
                {k: v for k, v in other["layers"][name].items() if k != "mean"}, rel=1e-3
            )


def test_a_run_of_one_rank_goes_on_with_two(two_ranks: Told, tmp_path: Path) -> None:
    """With dropout on: the draws are keyed by sample, so they do not depend on the ranks either."""
    single = toy_run(tmp_path, toy_settings())
    folder, _ = two_ranks
    assert distance(single.checkpoint, folder / "begun/checkpoints/step-00000012") < 1e-6
    assert losses(tmp_path) == pytest.approx(losses(folder / "begun"), rel=1e-6)


def test_what_happens_on_one_rank_is_decided_by_all(two_ranks: Told) -> None:
    _, (told, _) = two_ranks
    assert told["nan"]["skipped"] == {"not finite": 1}
    assert (told["interrupted"]["ended"], told["interrupted"]["step"]) == ("interrupted", 3)
    assert told["deadline"]["ended"] == "finished"
    assert 38 <= told["deadline"]["step"] <= 42  # 60 seconds at 1.5 a step


def test_all_ranks_begin_with_the_weights_of_the_main_one(two_ranks: Told, tmp_path: Path) -> None:
    single = toy_run(tmp_path, toy_settings(3))
    folder, _ = two_ranks
    assert distance(single.checkpoint, folder / "shared/checkpoints/step-00000003") < 1e-6


def test_validation_is_shared_and_summed(two_ranks: Told) -> None:
    _, (told, _) = two_ranks
    for name, samples in (("validation", 5), ("few", 3)):
        alone_measured = mean_loss(toy_net(), toy_objective, ToyBatches(), samples=samples, batch_size=4, world=alone())
        assert told[name] == pytest.approx(alone_measured, rel=1e-6)


def test_checkpoints_of_two_ranks_are_whole(two_ranks: Told) -> None:
    folder, _ = two_ranks
    assert load_checkpoint(folder / "fresh/checkpoints/step-00000008").state.step == 8
