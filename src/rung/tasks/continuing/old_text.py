"""What the parent run was trained on: remembered by recipe and hash, read again, refused when it is not the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.data.tokenizer import Tokenizer
from rung.errors import DataError, RunFolderError, UsageError
from rung.progress import Progress
from rung.recipe import Recipe
from rung.tasks.run import Run
from rung.tasks.text_preparation import PreparedText, prepare_text, read_corpus


@dataclass(frozen=True)
class OldText:
    """The text of a run: which files, read and split how, and the SHA-256 of what came of it. Stored as plain JSON."""

    run: str
    text: Mapping[str, Any]
    seed: int
    sha256: str

    @classmethod
    def of(cls, run: Run) -> OldText:
        """The text that `run` itself was trained on; its files by their whole paths, to be found from anywhere."""
        recipe = run.recipe
        whole = {
            "text.files": [str(Path(name).resolve()) for name in recipe.text.files],
            "text.valid": [str(Path(name).resolve()) for name in recipe.text.valid],
        }
        text = recipe.with_overrides(whole).text.model_dump(mode="json")
        return cls(str(run.folder.resolve()), text, recipe.seed, run.header["data"]["sha256"])

    def to_json(self) -> dict[str, Any]:
        """Plain values for `rung.json`."""
        return {"run": self.run, "text": dict(self.text), "seed": self.seed, "sha256": self.sha256}

    def prepare(self, tokenizer: Tokenizer, progress: Progress) -> PreparedText:
        """Read it again. Raises RunFolderError when it is gone or not the same any more."""
        recipe = Recipe.parse({"text": self.text, "seed": self.seed})
        where = ", ".join(recipe.text.files)
        hint = "bring the old text back, or carry on without it: --replay 0"
        try:
            corpus = read_corpus(recipe, progress)
        except (DataError, UsageError) as error:
            raise RunFolderError(
                f"the text of the parent run cannot be read any more: {error.problem}", where=where, hint=hint
            ) from error
        if corpus.sha256 != self.sha256:
            raise RunFolderError("the text of the parent run has changed since", where=where, hint=hint)
        return prepare_text(recipe, progress, tokenizer=tokenizer, corpus=corpus)


def ancestry(parent: Run) -> tuple[OldText, ...]:
    """The text of `parent`, and of the runs that it was itself carried on from: all that its weights have read."""
    before = (parent.header.get("continues") or {}).get("old", [])
    return (OldText.of(parent), *(OldText(**entry) for entry in before))


def prepare_old(
    old: tuple[OldText, ...], tokenizer: Tokenizer, progress: Progress, *, needed: bool
) -> tuple[tuple[PreparedText, ...], str | None]:
    """All old texts, or none and the reason why; RunFolderError instead where they are `needed`."""
    try:
        return tuple(text.prepare(tokenizer, progress) for text in old), None
    except RunFolderError as error:
        if needed:
            raise
        return (), error.problem
