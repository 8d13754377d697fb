"""`rung.tune`: another model's weights, tuned to a task. The table of the tasks, and who tunes for each.

A module that tunes has `tune(base, data, *, method, minutes, epochs, steps, out, seed, threads, valid, test, overrides,
progress, display, started, ...)`, without those that mean nothing to it, `resume(run, ...)`, and perhaps `plan`, which
takes what `tune` takes. It writes the name of its task into the run's header under `TUNED_FOR`, so that a run that was
interrupted finds the way back to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from rung.errors import RunFolderError, UsageError, did_you_mean
from rung.runfolder import read_header

TUNED_FOR = "tuned_for"
"""The key of a run's header that holds the name of the tuning task."""

TASKS: Mapping[str, str] = {
    "classify": "rung.tasks.classification.tuning",
    "tag": "rung.tasks.tagging.tuning",
    "similarity": "rung.tasks.similarity.tuning",
    "rewrite": "rung.tasks.rewriting.tuning",
    "chat": "rung.tasks.chat.tuning",
    "text": "rung.tasks.language_model_tuning",
    "prefer": "rung.tasks.chat.preferences",
    "reward": "rung.tasks.chat.rewards",
}
"""What can be tuned for, and the module that does it."""


class Tuned(Protocol):
    """How tuning went."""

    @property
    def run(self) -> Path:
        """The run folder."""
        ...

    @property
    def ended(self) -> str:
        """`finished`, `stopped early` or `interrupted`."""
        ...

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The same for machines."""
        ...


def tune(base: str | Path, data: Sequence[str | Path], *, task: str, **wishes: Any) -> Tuned:
    """Tune the model `base` - a folder, a run, a .gguf file, or a name such as "minilm" - on `data` for `task`.

    `wishes` are those of the task's module (see `TASKS`): `method` (a `TuningMethod`: full, frozen body or LoRA),
    `minutes`, `epochs` or `steps`, `out`, `seed`, `valid`, `test`, `overrides`, columns of the data.

        rung.tune("minilm", ["questions.csv"], task="classify", target="label", epochs=3)

    Raises UsageError for an unknown task, and what the task raises. TypeError names a wish that the task does not know.
    """
    tuned: Tuned = import_module(home_of(task)).tune(base, data, **wishes)
    return tuned


def resume(run: str | Path, **wishes: Any) -> Tuned:
    """Go on with a run that was interrupted, exactly as if it had not been. RunFolderError when `run` is none."""
    tuned: Tuned = import_module(home_of(task_of(Path(run)))).resume(run, **wishes)
    return tuned


def home_of(task: str) -> str:
    """The module that tunes for `task`. UsageError for an unknown one."""
    if task not in TASKS:
        raise UsageError(
            f"nothing is tuned for '{task}'{did_you_mean(task, list(TASKS))}", hint=f"there are {', '.join(TASKS)}"
        )
    return TASKS[task]


def task_of(run: Path) -> str:
    """The task that `run` is being tuned for. RunFolderError when it is no such run."""
    task = read_header(run).get(TUNED_FOR)
    if task not in TASKS:
        raise RunFolderError(
            "this folder is no run of `rung tune`", where=str(run), hint="name the folder that `rung tune` printed"
        )
    return str(task)
