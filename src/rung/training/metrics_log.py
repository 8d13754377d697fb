"""`metrics.jsonl`: one JSON object per line for every logged step, validation and incident, in order."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rung.runfolder import readable_write_errors


class MetricsLog:
    """Appends to the log while entered; every line is flushed, so that a killed process loses none."""

    def __init__(self, path: Path, *, from_step: int) -> None:
        """Open `path` to go on after `from_step` steps: lines of later steps, and half a last line, are cut off."""
        self._path = path
        if path.exists():
            os.truncate(path, _length_until(path, from_step))
        self._file = path.open("a", encoding="utf-8", newline="\n")

    def append(self, line: dict[str, Any]) -> None:
        """Write one line; `line["step"]` is the number of steps done. Raises RunFolderError when the disk is full."""
        with readable_write_errors(self._path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Bring all lines to the disk, where they survive a loss of power. Raises RunFolderError when it is full."""
        with readable_write_errors(self._path):
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # What could not be written is tried again here: on a full disk the first error is the one to see.
        with nullcontext() if error is None else suppress(OSError):
            self._file.close()


def _length_until(path: Path, step: int) -> int:
    """Bytes of the whole lines up to and with `step`, which were brought to the disk before that step's checkpoint."""
    length = 0
    with path.open("rb") as file:
        for line in file:
            try:
                is_later = json.loads(line)["step"] > step
            except ValueError:  # half a line, or what a loss of power left
                break
            if is_later or not line.endswith(b"\n"):
                break
            length += len(line)
    return length
