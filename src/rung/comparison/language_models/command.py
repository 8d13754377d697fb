"""`rung compare TEXT`: from files and wishes to a folder with a report and a run folder for every rung."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rung.comparison.folder import begin, open_folder
from rung.comparison.language_models.compare import compare_language_models
from rung.comparison.language_models.report import write_reports
from rung.comparison.language_models.result import LanguageLadder
from rung.comparison.language_models.rungs import chosen_rungs
from rung.comparison.language_models.settings import LadderSettings
from rung.comparison.language_models.text import cut_text
from rung.errors import UsageError
from rung.progress import SILENT, Progress
from rung.training.plan import choose_vocab_size


def compare_texts(
    files: Sequence[Path | str],
    *,
    out: Path | str,
    valid: Sequence[Path | str] = (),
    test: Sequence[Path | str] = (),
    resume: bool = False,
    command: str = "",
    started: float | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> LanguageLadder:
    """Train every rung of the ladder of language models on raw text, measure each on the same test text, and report.

    `out` gets `report.html`, `report.json`, `report.md` and a run folder for each rung under `rungs/`. `settings` are
    those of `LadderSettings`: minutes or steps, parameters, tokenizer, rungs, margin, seed, seeds. With `resume` an
    interrupted comparison in `out` goes on.

    Raises DataError for text that cannot be used, UsageError for contradictory wishes, RunFolderError when `out` holds
    something else.
    """
    out = Path(out)
    wish = _settings(settings)
    open_folder(out, resume=resume)
    text = cut_text(
        [Path(name) for name in files],
        valid=[Path(name) for name in valid],
        test=[Path(name) for name in test],
        folder=out / "text",
        seed=wish.seed,
        progress=progress,
    )
    if wish.vocab_size is None:  # one vocabulary for all: what differs shall be the network
        wish = wish.model_copy(update={"vocab_size": _vocab_size(wish, text.facts)})
    begin(out, wish.model_dump(mode="json"), text.facts["sha256"])
    found = compare_language_models(text, wish, out=out, command=command, started=started, progress=progress)
    write_reports(found, out)
    return found


def _settings(values: dict[str, Any]) -> LadderSettings:
    """The wishes, checked before any text is read. Raises UsageError."""
    given = {key: value for key, value in values.items() if value is not None}
    if "steps" in given:
        given.setdefault("minutes", None)
    try:
        wish = LadderSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "minutes and steps"
        raise UsageError(f"{name}: {first['msg']}", hint="see rung compare --help") from error
    chosen_rungs(wish.rungs)
    return wish.model_copy(update={"threads": wish.threads or os.cpu_count() or 1})


def _vocab_size(wish: LadderSettings, facts: dict[str, Any]) -> int | None:
    """As for a single run of this text; other kinds of tokenizer know themselves how many tokens they have."""
    return choose_vocab_size(facts["parts"]["train"]["bytes"]) if wish.tokenizer == "bpe" else None
