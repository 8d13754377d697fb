"""Which room trains what was asked for: `--net`, `--task`, or the header of a run that goes on.

Every trainer is a module with a function `train`, and perhaps `plan`, `resume` and `extend`. A command offers all
options to all of them; a function that has no parameter for one that was given cannot be meant, and the user hears so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rung.cli.options import spelled
from rung.errors import UsageError, did_you_mean

LANGUAGE_MODELS = ("decoder", "lstm", "gru", "rnn", "feedforward", "ngram")
WORD_VECTORS = ("word2vec", "fasttext-vectors", "glove")
MASKED = ("bert",)
REWRITING = ("transformer", "lstm")
_LANGUAGE_MODELLING = "rung.tasks.language_modelling"
_REWRITING = "rung.tasks.rewriting.training"
_TUNING = "rung.tasks.tuning.tune"
_BY_NET = {
    **dict.fromkeys(LANGUAGE_MODELS, _LANGUAGE_MODELLING),
    **dict.fromkeys(WORD_VECTORS, "rung.tasks.word_vectors"),
    **dict.fromkeys(MASKED, "rung.tasks.masked_language_modelling"),
}
_BY_TASK = {"text": None, "translate": _REWRITING, "rewrite": _REWRITING}  # None: the network decides
_BY_HEADER = {
    "text": _LANGUAGE_MODELLING,
    "language-model": _LANGUAGE_MODELLING,
    "word-vectors": "rung.tasks.word_vectors",
    "masked-language-model": "rung.tasks.masked_language_modelling",
    "rewriting": _REWRITING,
}
_NOT_A_WISH = ("progress", "display", "started", "net")  # given by the command; the network has chosen the trainer
_ASKED_BY = {"extend": "--extend", "carry_on": "--from", "plan_carry_on": "--from", "plan": "planning"}
_SPELLED = {"texts": "TEXT", "overrides": "set"}


@dataclass(frozen=True)
class Trainer:
    """A module that trains, and the words that chose it."""

    module: str
    chosen_by: str

    @property
    def is_language_modelling(self) -> bool:
        """Whether language models are trained: the network is a setting of their recipe (`net.family`)."""
        return self.module == _LANGUAGE_MODELLING

    def function(self, name: str) -> Callable[..., Any]:
        """The module's function `name`. Raises UsageError when there is none."""
        found: Callable[..., Any] | None = getattr(import_module(self.module), name, None)
        if found is None:
            asked_by = _ASKED_BY.get(name, f"`{name}`")
            raise UsageError(f"{asked_by} means nothing with {self.chosen_by}", hint="leave it out")
        return found

    def call(self, name: str, *positional: Any, **arguments: Any) -> Any:
        """Call the module's function `name` with those of `arguments` that it knows.

        Raises UsageError when there is no such function, or it does not know an argument that the user gave.
        """
        function = self.function(name)
        known = inspect.signature(function).parameters
        unknown = [key for key in arguments if key not in known and key not in _NOT_A_WISH]
        if names := spelled({_SPELLED.get(key, key): arguments[key] or None for key in unknown}):
            raise UsageError(f"{', '.join(names)} means nothing with {self.chosen_by}", hint="leave it out")
        return function(*positional, **{key: value for key, value in arguments.items() if key in known})


def trainer_for(*, net: str | None, task: str | None) -> Trainer:
    """The trainer of a new run. Raises UsageError for an unknown or unfitting network or task."""
    if task is not None and task not in _BY_TASK:
        raise _unknown("task", task, list(_BY_TASK))
    module = _BY_TASK[task or "text"]
    if module is not None:
        if net is not None and net not in REWRITING:
            raise _unknown(f"network for --task {task}", net, list(REWRITING))
        return Trainer(module, f"--task {task}")
    if net is not None and net not in _BY_NET:
        hint = "give --task translate too" if net in REWRITING else None
        raise _unknown("network", net, list(_BY_NET), hint=hint)
    return Trainer(_BY_NET[net or "decoder"], f"--net {net or 'decoder'}")


def trainer_of(run: Path) -> Trainer:
    """The trainer of a run that goes on. RunFolderError when `run` is none, UsageError where nothing is trained."""
    from rung.runfolder import read_header
    from rung.tasks.tuning.table import TUNED_FOR

    header = read_header(run)
    if TUNED_FOR in header:
        return Trainer(_TUNING, "a run of `rung tune`")
    task = header.get("task")
    if task not in _BY_HEADER:
        raise UsageError(f"a folder of the task '{task}' cannot be trained on", where=str(run))
    return Trainer(_BY_HEADER[task], f"a run of the task '{task}'")


def _unknown(what: str, name: str, known: list[str], *, hint: str | None = None) -> UsageError:
    return UsageError(
        f"there is no {what} '{name}'{did_you_mean(name, known)}", hint=hint or f"there are {', '.join(known)}"
    )
