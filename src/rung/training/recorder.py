"""What a run tells while it trains: log lines, event files and the display, from the main process only."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rung.training.checkpoint import TrainerState
from rung.training.contracts import LoopSettings, Validation
from rung.training.distributed import World
from rung.training.gradients import GlobalBatch
from rung.training.guards import Verdict
from rung.training.meter import Display, Figures, Meter, StepReport
from rung.training.metrics_log import MetricsLog
from rung.training.schedule import Revision
from rung.training.tensorboard import EventFiles
from rung.training.vital_signs import VitalSigns

METRICS = "metrics.jsonl"
EVENTS = "events"
_REFUSED_KEPT = 128


class Recorder:
    """Turns steps into reports. Losses in the log are means over all steps since the last line."""

    def __init__(
        self,
        run_folder: Path,
        settings: LoopSettings,
        figures: Figures,
        world: World,
        display: Display,
        *,
        from_step: int,
    ) -> None:
        self._run_folder = run_folder
        self._settings = settings
        self._world = world
        self._display = display
        self._from_step = from_step
        self._unit = figures.unit
        self._meter = Meter(figures, world.size, world.device)
        self._log: MetricsLog | None = None
        self._events: EventFiles | None = None
        self._contexts = ExitStack()
        self._since_last_line: list[tuple[float, int]] = []
        self._memory = self._meter.memory()
        self.refused: deque[dict[str, Any]] = deque(maxlen=_REFUSED_KEPT)

    def __enter__(self) -> Self:
        if self._world.is_main:
            log = MetricsLog(self._run_folder / METRICS, from_step=self._from_step)
            self._log = self._contexts.enter_context(log)
            if self._settings.tensorboard:
                events = EventFiles(self._run_folder / EVENTS, from_step=self._from_step)
                self._events = self._contexts.enter_context(events)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._contexts.close()

    def say(self, message: str) -> None:
        """Tell the user one fact."""
        if self._world.is_main:
            self._display.say(message)

    def sync(self) -> None:
        """Bring the log to the disk, so that a checkpoint never knows of more than the log tells."""
        if self._log is not None:
            self._log.sync()

    def step(self, state: TrainerState, batch: GlobalBatch, verdict: Verdict, factor: float, seconds: float) -> None:
        """Report the step that has just made `state`."""
        if self._log is None:
            return
        self._meter.step_took(seconds, batch.count)
        if verdict is Verdict.FINE:
            self._since_last_line.append((batch.loss, batch.count))
        else:
            self._refused(state, batch, verdict)
        if state.step % self._settings.log_every == 0:
            self._memory = self._meter.memory()
        report = self._report(state, batch, verdict, factor)
        self._display.update(report)
        if state.step % self._settings.log_every == 0:
            self._write(report, state)

    def validation(self, state: TrainerState, result: Validation) -> None:
        """Log and tell one validation. What came out as no number is named, and left out of the log."""
        line = {"criterion": result.criterion, **result.metrics}
        known = _finite(line)
        self._append({"step": state.step, "validation": known})
        if self._events is not None:
            self._events.write(state.step, {f"validation/{name}": value for name, value in known.items()})
        if self._world.is_main and known:
            self._display.validated(state.step, _finite(result.metrics) or known)
        if len(known) < len(line):
            unknown = ", ".join(name for name in line if name not in known)
            self.say(f"step {state.step:,}: validation gave no finite number for {unknown}")

    def vital_signs(self, step: int, signs: VitalSigns) -> None:
        """Log what was found at step number `step`."""
        self._append({"step": step, "vital_signs": signs.to_json()})
        if self._events is not None:
            self._events.write(step, {f"vital_signs/{name}": value for name, value in signs.scalars().items()})

    def revision(self, revision: Revision) -> None:
        """Log and tell a changed plan."""
        self._append({"step": revision.step, "revision": asdict(revision)})
        planned, now = revision.old_steps, revision.new_steps
        self.say(f"step {revision.step:,}: {now:,} steps instead of {planned:,} ({revision.reason})")

    def _report(self, state: TrainerState, batch: GlobalBatch, verdict: Verdict, factor: float) -> StepReport:
        meter = self._meter
        return StepReport(
            step=state.step,
            steps=state.schedule.steps,
            loss=batch.loss,
            bits_per_byte=meter.bits_per_byte(batch.metrics.get("cross_entropy", batch.loss)),
            metrics=batch.metrics,
            learning_rate_factor=factor,
            gradient_norm=batch.norm,
            targets=state.targets,
            targets_per_second=meter.targets_per_second,
            unit=self._unit,
            peak_share=meter.peak_share,
            seconds_left=meter.seconds_left(state.schedule.steps - state.step),
            memory=self._memory,
            verdict=verdict,
            skipped=sum(state.guard.skipped.values()),
        )

    def _write(self, report: StepReport, state: TrainerState) -> None:
        """One line of the log, its loss the mean over the steps since the last line."""
        count = sum(count for _, count in self._since_last_line)
        if count == 0:  # every step since was refused, and each has a line of its own
            return
        loss = sum(loss * count for loss, count in self._since_last_line) / count
        self._since_last_line.clear()
        values = {
            "loss": loss,
            "bits_per_byte": report.bits_per_byte,
            **report.metrics,
            "learning_rate_factor": report.learning_rate_factor,
            "gradient_norm": report.gradient_norm,
            "targets": report.targets,
            "targets_per_second": report.targets_per_second,
            "peak_share": report.peak_share,
            "memory": report.memory,
            "seconds": state.seconds,
            "skipped": report.skipped,
        }
        known = _finite(values)
        self._append({"step": report.step, **known})
        if self._events is not None:
            self._events.write(report.step, {f"train/{name}": value for name, value in known.items()})

    def _refused(self, state: TrainerState, batch: GlobalBatch, verdict: Verdict) -> None:
        line = {
            "step": state.step,
            "refused": verdict,
            "loss": str(batch.loss),  # text: JSON knows neither NaN nor infinity
            "gradient_norm": str(batch.norm),
            "samples": [state.samples - state.batch_size, state.samples - 1],
        }
        self.refused.append(line)
        self._append(line)
        seen = f"loss {batch.loss:.4g}, gradient norm {batch.norm:.4g}"
        self.say(f"step {state.step:,} was not taken: {verdict} ({seen})")

    def _append(self, line: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.append(line)


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """Without what is not known or not finite: JSON knows neither NaN nor infinity."""
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
