"""Every error a user can see: what is wrong, where, and what to do about it.

The command line turns a `RungError` into one message and exit code 1, and a `UsageError` into exit code 2; anything
else that escapes is a defect of Rung and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RungError(Exception):
    """A problem the user can act on.

    `problem` says what is wrong, `where` names the file, row, key or step, `hint` says what to do.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.problem]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  do:    {self.hint}")
        return "\n".join(lines)


class UsageError(RungError):
    """The command or call was put together wrongly: unknown key, contradictory options, a missing argument."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe key is unknown, has a wrong value, or contradicts another."""


class DataError(RungError):
    """The text or table cannot be used as asked."""


class TokenizerError(RungError):
    """A tokenizer cannot be trained, loaded, or does not belong to this model."""


class RunFolderError(RungError):
    """A run folder or checkpoint is missing, damaged, or not what it says it is."""


class NewerFormatError(RunFolderError):
    """The folder was written by a newer Rung than this one."""


class PlanError(RungError):
    """The plan does not fit the machine, the minutes or the text; the hint names the knob."""


class TrainingError(RungError):
    """Training had to stop: non-finite loss, repeated spikes, a full disk. The last good checkpoint is kept."""


class GenerationError(RungError):
    """A generation request cannot be served: empty prompt, context too small, unknown option."""


class EvaluationError(RungError):
    """Something cannot be measured, or two records cannot be compared."""


class RungWarning(UserWarning):
    """What a user should know and that stops nothing. The command line says it as a remark."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or an empty string when nothing known is close to `word`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
