"""A program for the tests of resume: imports torch once, then runs one training after another, each in a fork.

Each line on standard input asks for one training: `{"run", "optimizer", "kill"}`. With `kill` = n the fork kills itself
(SIGKILL) at its n-th change to the file system or micro-batch; n = null: never. The answer line says how it ended and
how many such moments there were.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch's optimisers import it at their first use: seconds, to be spent before the forks
from training_toy import toy_objective, toy_run, toy_settings

from rung.objectives.loss import Loss
from rung.training.checkpoint import latest_good
from rung.training.contracts import Validation

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


class Fate:
    """Counts moments and ends the process at the chosen one."""

    def __init__(self, kill: int | None) -> None:
        self.kill, self.moments = kill, 0

    def moment(self) -> None:
        self.moments += 1
        if self.moments == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES and (event != "open" or set(str(arguments[1])) & set("wax+")):
            self.moment()


def run(run_folder: Path, optimizer: Any, fate: Fate) -> None:
    def objective(net: Any, batch: Any) -> Loss:
        fate.moment()
        return toy_objective(net, batch)

    def validate() -> Validation:  # another criterion each time, the same for each step
        return Validation(float(next(left)))

    resume = latest_good(run_folder, print)
    step = 0 if resume is None else resume.state.step
    left = iter([5, 3, 4, 2, 6, 1][step // 3 :])
    settings = toy_settings(15, checkpoint_every=3, validate_every=3, keep_last=2, vital_signs_every=4)
    toy_run(run_folder, settings, optimizer=optimizer, objective=objective, validate=validate, resume=resume)


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        counted, told = os.pipe()
        child = os.fork()
        if child == 0:
            fate = Fate(order["kill"])
            sys.addaudithook(fate.audit)
            with contextlib.redirect_stdout(sys.stderr):
                run(Path(order["run"]), order["optimizer"], fate)
            os.write(told, str(fate.moments).encode())
            os._exit(0)
        os.close(told)
        moments = os.read(counted, 64)
        os.close(counted)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        ended = "killed" if killed else "finished" if status == 0 else "failed"
        print(json.dumps({"ended": ended, "moments": int(moments or 0)}), flush=True)


if __name__ == "__main__":
    main()
