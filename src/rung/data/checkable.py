"""Problems whose answers can be checked without a judge: a prompt, and the number or the words that are right.

prompt (or question), answer    JSON Lines; GSM8K's answers end in "#### 42", and 42 is what counts
[Body,] sQuestion, lSolutions   SVAMP, MultiArith, AddSub and SingleEq: a JSON array
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.conversations import json_rows, text_value
from rung.data.similar_items import keyed_chances
from rung.data.unusable import UnusableRows
from rung.errors import DataError
from rung.progress import SILENT, Progress

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_FINAL = "####"
_LAYOUTS = 'give "prompt" and "answer", or the layout of GSM8K, SVAMP, MultiArith, AddSub or SingleEq'


@dataclass(frozen=True)
class Problem:
    """What is asked, and the right answer: a number in its shortest form ("12.5"), or words in lower case."""

    prompt: str
    answer: str

    @cached_property
    def id(self) -> str:
        """A name that comes from the content: 20 hexadecimal digits."""
        return hashlib.sha256(f"{self.prompt}\x00{self.answer}".encode()).hexdigest()[:20]

    @property
    def is_number(self) -> bool:
        """Whether the answer is compared as a number."""
        return _NUMBER.fullmatch(self.answer) is not None

    def solved_by(self, text: str) -> bool:
        """Whether the last number in `text` is the answer; of an answer in words, whether `text` is just these words.

        After "####", where a text has it, only what follows counts, as in GSM8K (Cobbe et al. 2021).
        """
        said = text.rpartition(_FINAL)[2]
        if not self.is_number:
            return " ".join(said.casefold().split()).rstrip(".") == self.answer
        numbers = _NUMBER.findall(said)
        return bool(numbers) and plain_number(numbers[-1]) == self.answer


@dataclass(frozen=True)
class Problems:
    """Problems in the order of their ids, each once. `remarks`: sentences about what was left out."""

    items: list[Problem]
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def sha256(self) -> str:
        """Hash over the ids: the identity of these problems."""
        return hashlib.sha256("\n".join(item.id for item in self.items).encode()).hexdigest()

    def take(self, rows: NDArray[np.int64]) -> Problems:
        """These problems, in the order of `rows`."""
        return Problems([self.items[row] for row in rows.tolist()], self.remarks)


def plain_number(text: str) -> str:
    """A number in its shortest form: "1,200.0" is "1200". However many digits it has, each of them counts."""
    whole, _, rest = f"{Decimal(text.replace(',', '')):f}".partition(".")
    rest = rest.rstrip("0")
    sign, digits = "-" * whole.startswith("-"), whole.lstrip("-0") or "0"
    return f"{sign}{digits}.{rest}" if rest else f"{sign if digits != '0' else ''}{digits}"


def read_problems(paths: Sequence[str | Path], *, progress: Progress = SILENT) -> Problems:
    """Read the problems of all `paths` (.jsonl, .json; plain or compressed). What cannot be used is left out and named.

    Raises DataError: a file is missing or damaged, more than 5 % of the rows cannot be used (the first is explained),
    nothing is left.
    """
    found: dict[str, Problem] = {}
    unusable = UnusableRows()
    rows = 0
    for path in map(Path, paths):
        for place, row in json_rows(path, progress):
            rows += 1
            try:
                if isinstance(row, str):
                    raise DataError(row, hint="mend or remove this row")
                one = _problem(row)
                found[one.id] = one
            except DataError as error:
                unusable.add(place, error)
    unusable.require_few(rows)
    if not found:
        raise DataError("there is no problem here", where=", ".join(map(str, paths)), hint=_LAYOUTS)
    return Problems(sorted(found.values(), key=lambda item: item.id), tuple(unusable.remarks("problems")))


def split_problems(problems: Problems, *, share: float, seed: int) -> tuple[Problems, Problems]:
    """Cut off `share` of the prompts by a keyed hash: (the rest, what was cut off). DataError when a part is empty."""
    chances = keyed_chances([item.prompt for item in problems.items], seed)
    wanted = max(1, round(share * len(problems)))
    chosen = chances <= np.sort(chances)[:wanted].max(initial=0)
    if not len(problems) or chosen.all():
        raise DataError(f"{len(problems):,} problems are too few to hold some out", hint="give more, or --test FILE")
    return problems.take(np.flatnonzero(~chosen)), problems.take(np.flatnonzero(chosen))


def _problem(row: Mapping[str, Any]) -> Problem:
    prompt, answer = _parts(row)
    if not prompt.strip():
        raise DataError("the prompt is empty", hint="remove this row")
    said = answer.rpartition(_FINAL)[2].strip()
    if not said:
        raise DataError("the answer is empty", hint="remove this row")
    number = _NUMBER.fullmatch(said.removeprefix("$"))
    return Problem(prompt.strip(), plain_number(number[0]) if number else " ".join(said.casefold().split()).rstrip("."))


def _parts(row: Mapping[str, Any]) -> tuple[str, str]:
    """Prompt and answer as text."""
    for asked, answered in (("prompt", "answer"), ("question", "answer"), ("sQuestion", "lSolutions")):
        if asked in row and answered in row:
            question = text_value(row[asked], asked).strip()
            body = text_value(row["Body"], "Body").strip() if "Body" in row else ""  # SVAMP's, often without its stop
            joint = "" if not body else " " if body.endswith((".", "?", "!")) else ", "
            return body + joint + question, _answer(row, answered)
    raise DataError(f"this layout is not known; its keys are {', '.join(map(repr, row)) or 'none'}", hint=_LAYOUTS)


def _answer(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise DataError(f"'{key}' is {value}, which nobody can answer", hint="remove this row")
        return plain_number(str(value))
    return text_value(value, key)
