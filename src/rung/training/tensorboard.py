"""TensorBoard event files beside the run, for those who already look at them. Needs the extra `tensorboard`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from rung.errors import UsageError


class EventFiles:
    """Writes reports as scalars into `folder`; use as a context, so that the last events reach the disk.

    Raises UsageError when TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, from_step: int) -> None:
        """Open event files; scalars of steps after `from_step`, written before a resume, are hidden by the reader."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "event files were asked for, but TensorBoard is not installed",
                hint="pip install 'rung[tensorboard]', or leave the option out: metrics.jsonl holds the same numbers",
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=from_step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add the scalars of one step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()
