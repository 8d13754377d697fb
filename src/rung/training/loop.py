"""The one training loop, for every network, objective and source of samples.

Step k trains on the next `batch_size` samples, by their global numbers; rank r takes the r-th equal slice and cuts it
into micro-batches. Losses are sums: they are added over micro-batches and ranks and divided once, by the global count
of targets, so 32 x 1, 1 x 32 and 2 ranks x 16 give one gradient. All randomness is keyed by the seed and the first
sample number of a micro-batch: nothing random needs storing, and dropout too is the same on one rank or two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from rung.errors import RecipeError, RunFolderError, TrainingError
from rung.runfolder import discard, remove_leftovers, write_json
from rung.training.checkpoint import (
    CHECKPOINTS,
    BestInMemory,
    Checkpoint,
    Saver,
    TrainerState,
    checkpoint_folder,
    checkpoints,
    prune,
)
from rung.training.contracts import (
    Batches,
    CarriesState,
    Ended,
    LoopResult,
    LoopSettings,
    Objective,
    Optimizer,
    Validation,
)
from rung.training.distributed import World, alone
from rung.training.gradients import BatchGradient, GlobalBatch
from rung.training.guards import Guard, Verdict
from rung.training.interrupts import Interrupts
from rung.training.meter import SILENT_DISPLAY, Display, Figures
from rung.training.pacing import Pace
from rung.training.recorder import Recorder
from rung.training.schedule import Revision
from rung.training.vital_signs import Examiner

FAILURE = "failure.json"
_DIVERGED = "train with a lower learning rate, or in fp32 if it was bf16"
_INTERRUPT = 1_000_000  # the wish of one rank; wishes are summed, and "the deadline has come" is a 1 from one rank


def train(
    net: nn.Module,
    objective: Objective,
    batches: Batches,
    optimizer: Optimizer,
    settings: LoopSettings,
    *,
    run_folder: Path,
    save_model: Callable[[Path], None] | None,
    header: dict[str, Any] | None = None,
    validate: Callable[[], Validation] | None = None,
    world: World | None = None,
    figures: Figures | None = None,
    display: Display = SILENT_DISPLAY,
    deadline: float | None = None,
    resume: Checkpoint | None = None,
    on_revision: Callable[[TrainerState], None] | None = None,
    resumed_as: Path | None = None,
    resume_command: str = "rung train --resume",
    before_step: Callable[[int], None] | None = None,
) -> LoopResult:
    """Train `net` in place until the schedule ends, validation stops improving, or someone interrupts.

    `save_model` writes the network into a checkpoint's folder and `header` goes into its `rung.json`. With None instead
    no checkpoint is written: the best weights are kept in memory and stand in `net` at the end. `deadline` is a
    reading of `time.monotonic()` by which the last step and checkpoint shall be done; without one no clock decides
    anything. With `resume`, `net` must hold that checkpoint's weights; its schedule, not that of `settings`, holds.
    `on_revision` hears of every change to the planned number of steps, on the main process. `resumed_as` is what the
    user names to go on, where `run_folder` is only a part of it. `before_step` is called with the number of steps done
    before each, to freeze or thaw parameters: what it does must depend on that number alone.

    Raises TrainingError when too many steps in a row cannot be taken (`failure.json` then tells more), RunFolderError
    when a checkpoint cannot be written, RecipeError when settings do not fit each other or the checkpoint.
    """
    world = world or alone()
    state = _starting_state(run_folder, settings, resume, world, display)
    _to_own_memory(net)
    if resume is not None:
        optimizer.load_state_tensors(resume.optimizer_tensors())
        if isinstance(objective, CarriesState):
            objective.load_state_tensors(resume.carried_tensors())
    world.share_weights(net)
    gradient = BatchGradient(
        net=net, objective=objective, batches=batches, optimizer=optimizer, settings=settings, world=world
    )
    saver: Saver | BestInMemory = BestInMemory(run_folder, net)
    if save_model is not None:
        saver = Saver(run_folder, save_model, header or {}, settings.keep_last)
    pace = Pace(deadline) if deadline is not None else None
    with Recorder(run_folder, settings, figures or Figures(), world, display, from_step=state.step) as recorder:
        trainer = _Trainer(
            net=net,
            gradient=gradient,
            optimizer=optimizer,
            carries=objective if isinstance(objective, CarriesState) else None,
            settings=settings,
            state=state,
            saver=saver,
            validate=validate,
            world=world,
            recorder=recorder,
            examiner=Examiner(net, objective, batches, settings, world.device) if world.is_main else None,
            pace=pace,
            on_revision=on_revision,
            resume_hint=f"{resume_command} {resumed_as or run_folder}",
            before_step=before_step,
        )
        with Interrupts(announce=world.is_main) as interrupts:
            result = trainer.run(interrupts)
    if isinstance(saver, BestInMemory):
        saver.restore()
        world.share_weights(net)
    return result


@dataclass
class _Trainer:
    net: nn.Module
    gradient: BatchGradient
    optimizer: Optimizer
    carries: CarriesState | None
    settings: LoopSettings
    state: TrainerState
    saver: Saver | BestInMemory
    validate: Callable[[], Validation] | None
    world: World
    recorder: Recorder
    examiner: Examiner | None
    pace: Pace | None
    on_revision: Callable[[TrainerState], None] | None
    resume_hint: str
    before_step: Callable[[int], None] | None

    def run(self, interrupts: Interrupts) -> LoopResult:
        """Steps until the end, with what comes round between them."""
        state, settings = self.state, self.settings
        self.net.train()
        saved = checkpoint_folder(self.saver.run_folder, state.step)
        ended: Ended | None = "finished" if state.step >= state.schedule.steps else None
        while ended is None:
            wish = self.train_step(lambda: _INTERRUPT if interrupts.wanted else self._deadline_wish())
            self._keep_pace(is_over=0 < wish < _INTERRUPT)
            better = self._validate() if self._comes_round(settings.validate_every) else None
            ended = self._ended(wish)
            is_due = ended is not None or self._decays_next() or self._regular_checkpoint_is_due()
            if is_due or (better is not None and settings.patience is not None):
                saved = self._save(better)
        if ended == "interrupted":
            self.recorder.say(f"saved at step {state.step:,}; go on with: {self.resume_hint}")
        return self._result(ended, saved, interrupt_wanted=interrupts.wanted)

    def train_step(self, wish: Callable[[], int]) -> int:
        """One optimiser step on the next global batch, unless the guard refuses it. Returns the sum of all wishes."""
        began = time.monotonic()
        state = self.state
        if self.before_step is not None:
            self.before_step(state.step)
        factor = state.schedule.multiplier(state.step)
        batch = self.gradient.compute(state.samples, wish)
        verdict = state.guard.judge(batch.loss, batch.norm, batch.count)
        if verdict is Verdict.FINE:
            self._update(factor, batch)
        state.step += 1
        state.samples += state.batch_size
        state.targets += batch.count
        seconds = time.monotonic() - began
        state.seconds += seconds
        if self.pace is not None:
            self.pace.step_took(seconds)
        self.recorder.step(state, batch, verdict, factor, seconds)
        if state.guard.must_stop:
            self._give_up(
                f"{state.guard.failures_in_a_row} steps in a row could not be taken: {verdict}",
                "check the labels and masks of the samples" if verdict is Verdict.NO_TARGETS else _DIVERGED,
            )
        return batch.wish

    def _update(self, factor: float, batch: GlobalBatch) -> None:
        """Move the weights; look at the network's vital signs when that is due."""
        state = self.state
        if self.examiner is None or not self.examiner.is_due(state.step + 1, state.seconds):
            self.optimizer.step(factor)
            return
        signs = self.examiner.take(
            lambda: self.optimizer.step(factor), first_sample=state.samples, gradient_norm=batch.norm
        )
        self.recorder.vital_signs(state.step + 1, signs)

    def _deadline_wish(self) -> int:
        return int(self.pace is not None and self.world.is_main and self.pace.is_over())

    def _keep_pace(self, *, is_over: bool) -> None:
        """Bend the schedule so that it ends at the deadline; the main process's clock decides for all."""
        state, schedule = self.state, self.state.schedule
        if self.pace is None or state.step >= schedule.steps or not (is_over or self.pace.is_due(schedule, state.step)):
            return
        every = {"validation": self.settings.validate_every, "checkpoint": self.settings.checkpoint_every}
        wanted = state.step if is_over else self.pace.new_steps(schedule, state.step, every)
        (steps,) = self.world.from_main([schedule.steps if wanted is None else wanted])
        if int(steps) == schedule.steps:
            return
        revision = Revision(state.step, schedule.steps, int(steps), "the deadline has come" if is_over else "time left")
        state.schedule = schedule.revised(state.step, int(steps))
        state.revisions.append(revision)
        self.recorder.revision(revision)
        if self.on_revision is not None and self.world.is_main:
            self.on_revision(state)

    def _comes_round(self, every: int | None) -> bool:
        """Whether something done every so many steps is due; what is done at all is also done after the last step."""
        step = self.state.step
        return every is not None and (step % every == 0 or step >= self.state.schedule.steps)

    def _regular_checkpoint_is_due(self) -> bool:
        """Not while steps cannot be taken: such weights must not push out healthy ones (kyutai-labs/pocket-tts#262)."""
        return self._comes_round(self.settings.checkpoint_every) and not self.state.guard.failures_in_a_row

    def _decays_next(self) -> bool:
        return self.state.step == self.state.schedule.decay_start < self.state.schedule.steps

    def _ended(self, wish: int) -> Ended | None:
        if self.state.step >= self.state.schedule.steps:
            return "finished"
        if wish >= _INTERRUPT:
            return "interrupted"
        patience = self.settings.patience
        return "stopped early" if patience is not None and self.state.stale >= patience else None

    def _validate(self) -> float | None:
        """Validate; the criterion if it is better than that of every checkpoint so far."""
        if self.validate is None:
            return None
        with self._upkeep("validation"):
            self.net.eval()
            with torch.no_grad():
                result = self.validate()
            self.net.train()
        (criterion,) = self.world.from_main([result.criterion])
        self.recorder.validation(self.state, result)
        best = self.state.best_criterion
        is_better = math.isfinite(criterion) and (best is None or criterion < best)
        self.state.stale = 0 if is_better else self.state.stale + 1
        return criterion if is_better else None

    def _save(self, better: float | None) -> Path:
        """Write a checkpoint; never one with weights that are not finite."""
        state = self.state
        for name, parameter in self.net.named_parameters():
            if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
                self._give_up(f"the weights of {name} are not finite after step {state.step:,}", _DIVERGED)
        if better is not None:
            state.best_step, state.best_criterion = state.step, better
        if self._decays_next():
            state.pre_decay_step = state.step
        with self._upkeep("checkpoint"):
            mine = self.carries.state_tensors() if self.carries else {}
            carried = {name: self.world.sum(tensor) for name, tensor in mine.items()}
            if self.world.is_main:
                self.recorder.sync()
                self.saver.save(state, self.optimizer.state_tensors(), carried)
            self.world.wait_for_all()
        return checkpoint_folder(self.saver.run_folder, state.step)

    @contextmanager
    def _upkeep(self, kind: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.state.seconds += seconds
        if self.pace is not None:
            self.pace.upkeep_took(kind, seconds)

    def _give_up(self, problem: str, hint: str) -> NoReturn:
        """Leave a report and stop; the checkpoints stay as they are."""
        state, run_folder = self.state, self.saver.run_folder
        last_good = list(checkpoints(run_folder).values())[-1:]
        if self.world.is_main:
            report = {
                "problem": problem,
                "step": state.step,
                "samples": [state.samples - state.batch_size, state.samples - 1],
                "learning_rate_factor": state.schedule.multiplier(state.step - 1),
                "refused": list(self.recorder.refused),
                "losses": list(state.guard.losses),
                "gradient_norms": list(state.guard.norms),
                "skipped": state.guard.skipped,
                "last_good_checkpoint": last_good[0].relative_to(run_folder).as_posix() if last_good else None,
            }
            write_json(run_folder / FAILURE, report)
        raise TrainingError(
            problem,
            where=f"step {state.step:,}; details in {run_folder / FAILURE}",
            hint=hint + ("; the last good checkpoint is kept" if last_good else ""),
        )

    def _result(self, ended: Ended, saved: Path, *, interrupt_wanted: bool) -> LoopResult:
        state = self.state
        best = checkpoints(self.saver.run_folder).get(-1 if state.best_step is None else state.best_step)
        return LoopResult(
            ended=ended,
            step=state.step,
            targets=state.targets,
            seconds=state.seconds,
            schedule=state.schedule,
            revisions=tuple(state.revisions),
            checkpoint=saved,
            best_checkpoint=best,
            best_step=state.best_step,
            best_criterion=state.best_criterion,
            skipped=dict(state.guard.skipped),
            interrupt_wanted=interrupt_wanted,
        )


def _starting_state(
    run_folder: Path, settings: LoopSettings, resume: Checkpoint | None, world: World, display: Display
) -> TrainerState:
    """The state to begin with, in a run folder cleared of what a killed process or an abandoned future left there."""
    if resume is None:
        if checkpoints(run_folder):
            hint = "go on with --resume, or choose another --out"
            raise RunFolderError("this run has checkpoints already", where=str(run_folder), hint=hint)
        state = TrainerState(settings.schedule, settings.batch_size, settings.seed, Guard(settings.guard))
    else:
        state = TrainerState.from_json(resume.state.to_json())  # a copy: training changes it
        for name in ("batch_size", "seed"):
            if getattr(state, name) != getattr(settings, name):
                raise RecipeError(
                    f"the run was begun with {name} {getattr(state, name)}, not {getattr(settings, name)}",
                    where=str(resume.folder),
                    hint=f"resume without changing {name}",
                )
    if world.is_main:
        run_folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(run_folder)
        remove_leftovers(run_folder / CHECKPOINTS)
        for step, folder in checkpoints(run_folder).items():
            if step > state.step:
                display.say(f"going on from step {state.step:,}: the checkpoint of step {step:,} is dropped")
                discard(folder)
        prune(run_folder, state, settings.keep_last)  # the process may have been killed just before it could
    world.wait_for_all()
    return state


def _to_own_memory(net: nn.Module) -> None:
    """Move weights that will be trained and may be views into a mapped file, at any address, to memory of their own.

    Math libraries promise equal bits only for equally aligned memory (Intel MKL, "Conditional Numerical
    Reproducibility": 64 bytes), so fresh and resumed weights must lie alike; and a mapped checkpoint will be deleted.
    """
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.clone()
