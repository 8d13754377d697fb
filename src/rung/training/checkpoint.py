"""Checkpoints: complete run folders from which training goes on bit for bit.

A checkpoint is what the caller's `save_model` writes (for ecosystem architectures a Hugging Face folder) plus

    trainer/optimizer.safetensors   the optimiser's tensors
    trainer/state.json              how far training is: `TrainerState`
    trainer/carried.safetensors     what the objective carries from batch to batch, where it does

There is no random state to store: every draw is keyed by the seed and the sample number.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rung.errors import RunFolderError, TrainingError
from rung.runfolder import discard, verify, write_folder, write_json
from rung.training.guards import Guard
from rung.training.schedule import Revision, Schedule

CHECKPOINTS = "checkpoints"
_PREFIX = "step-"
_OPTIMIZER = "trainer/optimizer.safetensors"
_CARRIED = "trainer/carried.safetensors"
_STATE = "trainer/state.json"
_STATE_VERSION = 1


@dataclass
class TrainerState:
    """Everything the loop knows besides weights and optimiser: plain numbers, the whole of `trainer/state.json`.

    `samples` is the number of the next sample; `targets` counts what the losses were summed over (tokens, for a
    language model); `best_criterion` is the lowest validation criterion of a checkpoint, `best_step` that checkpoint;
    `stale` counts the validations since that were not better; `pre_decay_step` names the newest checkpoint from just
    before a decay.
    """

    schedule: Schedule
    batch_size: int
    seed: int
    guard: Guard
    step: int = 0
    samples: int = 0
    targets: int = 0
    seconds: float = 0.0
    revisions: list[Revision] = field(default_factory=list)
    best_step: int | None = None
    best_criterion: float | None = None
    stale: int = 0
    pre_decay_step: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; floats survive JSON exactly."""
        return {"state_version": _STATE_VERSION, **asdict(self), "guard": self.guard.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` gave."""
        parts = {name: part for name, part in value.items() if name != "state_version"}
        parts["schedule"] = Schedule.from_json(parts["schedule"])
        parts["guard"] = Guard.from_json(parts["guard"])
        parts["revisions"] = [Revision(**revision) for revision in parts["revisions"]]
        return cls(**parts)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. The weights are the caller's to load, from `folder`."""

    folder: Path
    state: TrainerState

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimiser's tensors, views into the file: to be copied by whoever takes them over."""
        return load_file(self.folder / _OPTIMIZER)

    def carried_tensors(self) -> dict[str, Tensor]:
        """What the objective carries on, likewise; RunFolderError when this checkpoint holds no such thing."""
        if not (self.folder / _CARRIED).is_file():
            raise RunFolderError(
                f"this checkpoint has no {_CARRIED}, so its network cannot go on where it was", where=str(self.folder)
            )
        return load_file(self.folder / _CARRIED)


def checkpoint_folder(run_folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lives."""
    return run_folder / CHECKPOINTS / f"{_PREFIX}{step:08d}"


@dataclass(frozen=True)
class Saver:
    """Writes the checkpoints of one run: `save_model` fills in the network, `header` goes into `rung.json`."""

    run_folder: Path
    save_model: Callable[[Path], None]
    header: dict[str, Any]
    keep_last: int

    def save(
        self, state: TrainerState, optimizer_tensors: dict[str, Tensor], carried_tensors: dict[str, Tensor]
    ) -> Path:
        """Write the checkpoint of `state` in one step, delete those no longer kept, and return its folder.

        Raises RunFolderError when the disk is full or not writable; earlier checkpoints stay as they were.
        """

        def fill(folder: Path) -> None:
            self.save_model(folder)
            (folder / "trainer").mkdir()
            save_file(optimizer_tensors, folder / _OPTIMIZER)
            if carried_tensors:
                save_file(carried_tensors, folder / _CARRIED)
            write_json(folder / _STATE, state.to_json())

        final = checkpoint_folder(self.run_folder, state.step)
        write_folder(final, fill, {**self.header, "step": state.step})
        prune(self.run_folder, state, self.keep_last)
        return final


class BestInMemory:
    """Keeps the weights of the best validated step instead of checkpoints, for runs of seconds that nobody resumes.

    A checkpoint writes weights and two moments, hashes them and waits for the disk; this only copies the weights that
    are trained.
    """

    def __init__(self, run_folder: Path, net: nn.Module) -> None:
        self.run_folder = run_folder
        self._parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self._best: list[Tensor] = []

    def save(
        self,
        state: TrainerState,
        optimizer_tensors: dict[str, Tensor],  # noqa: ARG002 - not resumed
        carried_tensors: dict[str, Tensor],  # noqa: ARG002 - not resumed
    ) -> None:
        """Copy the weights if those of this step are the best so far."""
        if state.best_step == state.step:
            self._best = [parameter.detach().clone() for parameter in self._parameters]

    def restore(self) -> None:
        """Put the best weights back; without a validation, those of the last step stay."""
        if self._best:
            with torch.no_grad():
                torch._foreach_copy_(list[Tensor](self._parameters), self._best)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Verify every file of a checkpoint and read its state.

    Raises RunFolderError naming the damaged file, or saying that the folder is no checkpoint.
    """
    header = verify(folder)
    if _STATE not in header["files"]:
        raise RunFolderError(
            "this folder holds a model but no training state, so training cannot go on from it",
            where=str(folder),
            hint=f"give a run folder with {CHECKPOINTS}/ in it, or one of the folders in there",
        )
    value = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if value["state_version"] != _STATE_VERSION:
        raise RunFolderError(
            f"the training state has version {value['state_version']}; this Rung reads version {_STATE_VERSION}",
            where=str(folder / _STATE),
            hint="go on with the version of Rung that wrote it; the model itself can still be used",
        )
    return Checkpoint(folder, TrainerState.from_json(value))


def checkpoints(run_folder: Path) -> dict[int, Path]:
    """Folders of the run's checkpoints by step, oldest first; not verified."""
    found = (run_folder / CHECKPOINTS).glob(f"{_PREFIX}*")
    numbers = {path.name.removeprefix(_PREFIX): path for path in found}
    return {int(number): numbers[number] for number in sorted(numbers) if number.isdecimal()}


def latest_good(run_folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; every damaged one passed over is told to `say`.

    None when the run has no checkpoint yet. Raises RunFolderError when it has some and all are damaged.
    """
    found = checkpoints(run_folder)
    for step in reversed(found):
        try:
            return load_checkpoint(found[step])
        except RunFolderError as error:
            say(f"the checkpoint of step {step:,} is damaged and passed over:\n{error}")
    if found:
        raise RunFolderError(
            "every checkpoint of this run is damaged", where=str(run_folder / CHECKPOINTS), hint="train again"
        )
    return None


def pre_decay(run_folder: Path, say: Callable[[str], None]) -> Checkpoint:
    """The newest checkpoint from just before a decay. Raises RunFolderError when there is none, or it is damaged."""
    newest = latest_good(run_folder, say)
    if newest is None or newest.state.pre_decay_step is None:
        raise RunFolderError(
            "this run has no checkpoint from before its learning rate fell, so it cannot be extended",
            where=str(run_folder / CHECKPOINTS),
            hint="the checkpoint is written when the decay starts: let the run come that far, or train a new one",
        )
    return load_checkpoint(checkpoint_folder(run_folder, newest.state.pre_decay_step))


def extended(checkpoint: Checkpoint, steps: int) -> Checkpoint:
    """The same point of training with a longer horizon: `steps` steps in all, flat until a new, later decay.

    Raises TrainingError when `checkpoint` lies within a decay or `steps` is not beyond it.
    """
    state = checkpoint.state
    if state.step > state.schedule.decay_start:
        raise TrainingError(
            f"at step {state.step:,} the learning rate is falling already, since step {state.schedule.decay_start:,}",
            where=str(checkpoint.folder),
            hint="extend from the pre-decay checkpoint",
        )
    if steps <= state.step:
        raise TrainingError(f"{state.step:,} steps are already done; a horizon of {steps:,} is no extension")
    longer = TrainerState(**{**vars(state), "schedule": state.schedule.revised(state.step, steps)})
    longer.revisions = [*state.revisions, Revision(state.step, state.schedule.steps, steps, "extended")]
    return Checkpoint(checkpoint.folder, longer)


def prune(run_folder: Path, state: TrainerState, keep_last: int) -> None:
    """Delete checkpoints other than the last `keep_last`, the best one and the newest from just before a decay.

    Only called after a new checkpoint was written, and those are never written with weights that are not finite: the
    last good one is always among the kept.
    """
    found = checkpoints(run_folder)
    kept = {*list(found)[-keep_last:], state.best_step, state.pre_decay_step}
    for step, folder in found.items():
        if step not in kept:
            discard(folder)
