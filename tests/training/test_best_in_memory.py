"""The best weights kept in memory are those that a best checkpoint on the disk would hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rung.objectives.loss import Loss
from rung.training.contracts import LoopResult, LoopSettings, Validation
from rung.training.loop import train
from rung.training.optimizers import build_optimizer
from rung.training.schedule import Schedule


class _Squares:
    def __call__(self, net: nn.Module, batch: dict[str, Tensor]) -> Loss:
        return Loss(net(batch["x"]).square().sum(), torch.tensor(len(batch["x"])))


class _Numbers:
    def batch(self, sample_numbers: object) -> dict[str, Tensor]:
        x = torch.from_numpy(sample_numbers).float()  # type: ignore[arg-type]
        return {"x": torch.stack([x.sin(), x.cos()], dim=1)}


def run(folder: Path, criteria: list[float], *, on_disk: bool) -> tuple[nn.Linear, LoopResult]:
    """Eight steps, validated every second one with the given outcomes."""
    torch.manual_seed(0)
    net = nn.Linear(2, 3)
    outcomes: Iterator[float] = iter(criteria)
    result = train(
        net,
        _Squares(),
        _Numbers(),
        build_optimizer(net, name="adamw", learning_rate=0.1),
        LoopSettings(
            schedule=Schedule.warmup_flat_decay(8, warmup=0, decay_fraction=0.5, final=0.0),
            batch_size=4,
            micro_batch_size=4,
            validate_every=2 if criteria else None,
            patience=3 if criteria else None,
        ),
        run_folder=folder,
        save_model=(lambda target: save_file(net.state_dict(), target / "net.safetensors")) if on_disk else None,
        header={},
        validate=(lambda: Validation(next(outcomes))) if criteria else None,
    )
    return net, result


def test_the_best_weights_are_those_of_the_best_checkpoint(tmp_path: Path) -> None:
    criteria = [3.0, 1.0, 2.0, 1.5]
    _, on_disk = run(tmp_path / "disk", criteria, on_disk=True)
    net, in_memory = run(tmp_path / "memory", criteria, on_disk=False)
    assert on_disk.best_checkpoint is not None
    assert in_memory.best_checkpoint is None
    assert in_memory.best_step == on_disk.best_step == 4
    for name, tensor in load_file(on_disk.best_checkpoint / "net.safetensors").items():
        assert torch.equal(net.state_dict()[name], tensor)
    assert not list((tmp_path / "memory").rglob("*.safetensors"))


def test_without_validation_the_last_weights_stay(tmp_path: Path) -> None:
    _, on_disk = run(tmp_path / "disk", [], on_disk=True)
    net, in_memory = run(tmp_path / "memory", [], on_disk=False)
    assert in_memory.best_step is None
    for name, tensor in load_file(on_disk.checkpoint / "net.safetensors").items():
        assert torch.equal(net.state_dict()[name], tensor)
