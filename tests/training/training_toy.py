"""A small language model of plain torch modules, its data and a run, shared by the tests of the training room.

Nothing of `rung.nets` or `rung.data` on purpose: the loop must train any network from any source of samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rung.objectives.loss import Loss
from rung.training.checkpoint import Checkpoint
from rung.training.contracts import LoopResult, LoopSettings, Validation
from rung.training.loop import train
from rung.training.optimizers import OptimizerName, build_optimizer
from rung.training.schedule import Schedule

VOCABULARY = 29
CONTEXT = 12


class ToyNet(nn.Module):
    """Embedding, one residual block with dropout, output matrix."""

    def __init__(self, dropout: float = 0.1, hidden: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, hidden)
        self.up = nn.Linear(hidden, 2 * hidden)
        self.down = nn.Linear(2 * hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.lm_head = nn.Linear(hidden, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores (batch, time, vocabulary) of `tokens` (batch, time)."""
        hidden = self.embed(tokens).cumsum(1)
        hidden = hidden + self.dropout(self.down(torch.relu(self.up(self.norm(hidden)))))
        scores: Tensor = self.lm_head(hidden)
        return scores


class ToyBatches:
    """Sample n is drawn from a generator keyed by n; every third position of an odd sample has no target."""

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        rows = [np.random.default_rng(int(n)).integers(0, VOCABULARY // 2, CONTEXT + 1) for n in sample_numbers]
        tokens = torch.from_numpy(np.cumsum(np.stack(rows), axis=1) % VOCABULARY)
        labels = tokens[:, 1:].clone()
        labels[torch.from_numpy(np.asarray(sample_numbers) % 2 == 1), ::3] = -100
        return {"input_ids": tokens[:, :-1], "labels": labels}


def toy_objective(net: Any, batch: Any) -> Loss:
    """Summed cross-entropy of the next token."""
    scores, labels = net(batch["input_ids"]), batch["labels"]
    total = nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="sum")
    right = (scores.detach().argmax(-1) == labels).sum()
    return Loss(total, (labels != -100).sum(), {"accuracy": right})


def toy_net(dropout: float = 0.1) -> ToyNet:
    """A net of fixed first weights."""
    torch.manual_seed(0)
    return ToyNet(dropout)


def toy_settings(steps: int = 12, **changes: Any) -> LoopSettings:
    """A short schedule with everything in it."""
    values: dict[str, Any] = {
        "schedule": Schedule.warmup_flat_decay(steps, warmup=2, decay_fraction=0.5, final=0.1),
        "batch_size": 8,
        "micro_batch_size": 4,
        "checkpoint_every": 3,
        "log_every": 1,
        "vital_signs_every": 0,
        **changes,
    }
    return LoopSettings(**values)


def toy_run(
    run_folder: Path,
    settings: LoopSettings,
    *,
    optimizer: OptimizerName = "adamw",
    dropout: float = 0.1,
    resume: Checkpoint | None = None,
    net: ToyNet | None = None,
    objective: Any = toy_objective,
    batches: Any = None,
    save_model: Any = None,
    **arguments: Any,
) -> LoopResult:
    """Train a toy net in `run_folder`, from `resume` if given."""
    net = net or toy_net(dropout)
    if resume is not None:
        net.load_state_dict(load_file(resume.folder / "model.safetensors"))
    driver = build_optimizer(net, name=optimizer, learning_rate=0.01, weight_decay=0.1)

    def save(folder: Path) -> None:
        save_file(net.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})

    return train(
        net,
        objective,
        batches or ToyBatches(),
        driver,
        settings,
        run_folder=run_folder,
        save_model=save_model or save,
        header={"task": "toy"},
        resume=resume,
        **arguments,
    )


def weights(folder: Path) -> bytes:
    """The bytes of a checkpoint's weights and optimiser."""
    return (folder / "model.safetensors").read_bytes() + (folder / "trainer/optimizer.safetensors").read_bytes()


class Watching:
    """A display that keeps what it was shown."""

    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.said: list[str] = []

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        pass

    def update(self, report: Any) -> None:
        self.reports.append(report)

    def say(self, message: str) -> None:
        self.said.append(message)


def no_validation() -> Validation:
    """For runs whose validation does not matter."""
    return Validation(1.0)
