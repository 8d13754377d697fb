"""A program for `torchrun`: several short trainings on all ranks; each rank writes down how they ended.

Arguments: the folder to work in. It holds `begun/`, a run of one rank to go on from.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from training_toy import ToyBatches, toy_net, toy_objective, toy_run, toy_settings

from rung.objectives.loss import Loss
from rung.training.checkpoint import load_checkpoint
from rung.training.contracts import LoopResult, Validation
from rung.training.distributed import World, world_from_environment
from rung.training.validation import mean_loss


def digest(net: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest()


def described(result: LoopResult, net: torch.nn.Module) -> dict[str, Any]:
    return {"ended": result.ended, "step": result.step, "skipped": result.skipped, "weights": digest(net)}


class OnOneRank:
    """Calls `act` on rank 1 alone, at its third micro-batch."""

    def __init__(self, world: World, act: Any) -> None:
        self.world, self.act, self.calls = world, act, 0

    def __call__(self, net: Any, batch: Any) -> Loss:
        self.calls += 1
        loss = toy_objective(net, batch)
        if self.world.rank == 1 and self.calls == 3:
            return self.act(loss)  # type: ignore[no-any-return]
        return loss


def to_nan(loss: Loss) -> Loss:
    return Loss(loss.total * math.nan, loss.count, loss.metrics)


def interrupt(loss: Loss) -> Loss:
    signal.raise_signal(signal.SIGTERM)
    return loss


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    told: dict[str, Any] = {}
    with world_from_environment() as world:

        def run(name: str, settings: Any, net: Any = None, objective: Any = toy_objective, **arguments: Any) -> None:
            net = net or toy_net(arguments.get("dropout", 0.1))
            result = toy_run(folder / name, settings, net=net, objective=objective, world=world, **arguments)
            told[name] = described(result, net)

        run("fresh", toy_settings(8, batch_size=32, micro_batch_size=16, vital_signs_every=2), toy_net(0.0))
        run("begun", toy_settings(), resume=load_checkpoint(folder / "begun/checkpoints/step-00000006"))
        run("nan", toy_settings(6, micro_batch_size=4), objective=OnOneRank(world, to_nan))
        run("interrupted", toy_settings(9), objective=OnOneRank(world, interrupt))

        net = toy_net()
        if world.rank == 1:  # what differs at the start must not stay different
            torch.nn.init.zeros_(net.up.weight)
        run("shared", toy_settings(3), net)

        def slow(net: Any, batch: Any) -> Loss:  # rank 1's clock is an hour ahead: only the main one's counts
            clock[0] += 1.5
            return toy_objective(net, batch)

        clock = [3600.0 * world.rank]
        honest, time.monotonic = time.monotonic, lambda: clock[0]
        run("deadline", toy_settings(60, checkpoint_every=None), objective=slow, deadline=clock[0] + 60)
        time.monotonic = honest

        values = mean_loss(toy_net(), toy_objective, ToyBatches(), samples=5, batch_size=4, world=world)
        told["validation"] = Validation(values["loss"], values).metrics
        told["few"] = mean_loss(toy_net(), toy_objective, ToyBatches(), samples=3, batch_size=4, world=world)
        (folder / f"rank-{world.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
