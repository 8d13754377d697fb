"""What can be tuned for, and the module whose `TUNER` (a `rung.tasks.tuning.tuner.Tuner`) says how.

Light enough for every command to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rung.errors import RunFolderError, UsageError, did_you_mean
from rung.runfolder import read_header

TUNED_FOR = "tuned_for"
"""The key of a run's header that holds the name of the task it is tuned for."""

TASKS: Mapping[str, str] = {
    "classify": "rung.tasks.classification.tuning",
    "tag": "rung.tasks.tagging.tuning",
    "similarity": "rung.tasks.similarity.tuning",
    "rewrite": "rung.tasks.rewriting.tuning",
    "chat": "rung.tasks.chat.tuning",
    "text": "rung.tasks.text.tuning",
    "prefer": "rung.tasks.chat.preference_tuning",
    "reward": "rung.tasks.chat.reward_tuning",
}


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
