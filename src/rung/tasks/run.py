"""The life of one run folder: planned, trained, finished; and what is told about it in the end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rung.errors import RunFolderError, UsageError
from rung.recipe import AnyRecipe, Recipe
from rung.records import ItemScores, Record
from rung.runfolder import HEADER_NAME, read_header, verify, write_header, write_json, write_text
from rung.version import __version__

State = Literal["planned", "training", "interrupted", "finished"]

RESULTS = "results.json"
SCORES = "scores"
CARD = "README.md"
_OF_A_CHECKPOINT_ONLY = ("trainer", "rung.json")


@dataclass(frozen=True)
class TrainSummary:
    """What a training command has to say in the end.

    `bits_per_byte` is measured on held-out text; `floors` are gzip, bz2 and xz on the same text. After an interruption
    nothing is measured and both are empty.
    """

    run: Path
    ended: str
    steps: int
    tokens: int
    epochs: float
    parameters: int
    seconds: float
    tokens_per_second: float
    bits_per_byte: Record | None
    floors: tuple[Record, ...]
    sample: str
    plan: Mapping[str, Any]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.run),
            "ended": self.ended,
            "steps": self.steps,
            "tokens": self.tokens,
            "epochs": round(self.epochs, 3),
            "parameters": self.parameters,
            "seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "bits_per_byte": self.bits_per_byte and self.bits_per_byte.model_dump(mode="json"),
            "floors": [floor.model_dump(mode="json") for floor in self.floors],
            "sample": self.sample,
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


@dataclass
class Run:
    """A run folder and its header, `rung.json`. Changing the header and writing it is one step."""

    folder: Path
    header: dict[str, Any]

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        recipe: AnyRecipe,
        plan: Mapping[str, Any],
        data: Mapping[str, Any],
        parent: Mapping[str, Any] | None,
        task: str = "text",
    ) -> Run:
        """Start a run folder; `parent` names the run and step it trains on from. UsageError when it is not empty.

        `task` says what the folder will do, "text" being a language model: `rung.tasks.loading` goes by it.
        """
        require_empty(folder)
        make_output_folder(folder)
        header = {
            "kind": "run",
            "rung_version": __version__,
            "task": task,
            "state": "planned",
            "recipe": recipe.to_json(),
            "plan": dict(plan),
            "data": dict(data),
            "parent": parent and dict(parent),
        }
        return cls(folder, header)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run folder to go on with it. Raises RunFolderError when it is none."""
        header = read_header(folder)
        if header.get("kind") != "run" or "recipe" not in header:
            raise RunFolderError(
                "this is not the folder of a training run", where=str(folder), hint="give the folder above checkpoints/"
            )
        header.pop("files", None)
        header.pop("format_version", None)
        return cls(folder, header)

    @classmethod
    def open_unfinished(cls, folder: Path, *, threads: int | None, instead: str) -> Run:
        """Open a run folder to go on with it, with the `threads` that it was planned with.

        Raises RunFolderError when it is none or is finished (`instead`: what to do then), UsageError for other threads.
        """
        run = cls.open(folder)
        if run.header["state"] == "finished":
            raise RunFolderError("this run is finished", where=str(folder), hint=instead)
        planned = run.header["recipe"]["training"]["threads"]
        if threads not in (None, planned):
            raise UsageError(
                f"this run was planned with {planned} threads; with another number its sums would differ",
                hint="leave --threads out",
            )
        return run

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return Recipe.parse(self.header["recipe"], where=str(self.folder / "rung.json"))

    def write(self, state: State, **changes: Any) -> None:
        """Write the header with a new state; the model's files are listed once there are some."""
        self.header |= {"state": state, **changes}
        write_header(self.folder, self.header, [name for name in self._model_files() if (self.folder / name).is_file()])

    def publish(
        self,
        checkpoint: Path,
        *,
        card: str,
        records: Sequence[Record],
        scores: Mapping[str, ItemScores],
        further: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the run folder itself the model of `checkpoint`, with its card and measurements, and call it finished.

        `further` are entries of `results.json` beside the records. The header is written last: until then the folder is
        not a finished run.
        """
        for path in checkpoint.iterdir():
            if path.name in _OF_A_CHECKPOINT_ONLY:
                continue
            if path.is_dir():  # a step of a sentence encoder
                shutil.copytree(path, self.folder / path.name, dirs_exist_ok=True)
            else:
                shutil.copy2(path, self.folder / path.name)
        write_measurements(self.folder, card=card, records=records, scores=scores, further=further)
        self.write("finished", published=checkpoint.name)

    def _model_files(self) -> list[str]:
        names = [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "adapter_config.json",
            "adapter_model.safetensors",
            "tuned.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "source.spm",
            "target.spm",
            "vocab.json",
            "merges.txt",
            "vocabulary.json",
            "modules.json",
            "sentence_bert_config.json",
            "config_sentence_transformers.json",
            RESULTS,
        ]
        further = [*(self.folder / SCORES).glob("*.jsonl"), *self.folder.glob("[0-9]_*/*")]
        return [*names, *(path.relative_to(self.folder).as_posix() for path in sorted(further))]


def write_measurements(
    folder: Path,
    *,
    card: str,
    records: Sequence[Record],
    scores: Mapping[str, ItemScores],
    further: Mapping[str, Any] | None = None,
) -> None:
    """Write the card, `results.json` and the per-item scores of a model into its folder; its header comes after."""
    for name, items in scores.items():
        items.save(folder / SCORES / f"{name}.jsonl")
    write_json(folder / RESULTS, {"records": [record.model_dump(mode="json") for record in records], **(further or {})})
    write_text(folder / CARD, card)


def model_folder(folder: str | Path) -> Path:
    """Where the model of `folder` is: there, or for a run that is not finished in its newest checkpoint.

    Hashes are checked where the folder lists them. A folder that peft wrote becomes one in the cache, with what it
    lacks from its base. Raises RunFolderError when there is none or it is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RunFolderError("there is no such folder", where=str(path), hint="give the folder that training printed")
    if (path / HEADER_NAME).exists():
        header = read_header(path)
        if header.get("kind") == "run" and header.get("state") != "finished":
            path = _newest_checkpoint(path)
        verify(path)
    if lacks_its_base(path):
        from rung.tasks.tuning.peft_folder import completed  # late: it imports torch

        return completed(path)
    return path


def lacks_its_base(folder: Path) -> bool:
    """Whether `folder` holds an adapter as peft writes it: without a record of its base, and without its settings."""
    return (folder / "adapter_config.json").is_file() and not (folder / "tuned.json").is_file()


def _newest_checkpoint(run: Path) -> Path:
    from rung.training.checkpoint import checkpoints  # late: it imports torch

    found = checkpoints(run)
    if not found:
        raise RunFolderError(
            "this run has no checkpoint yet", where=str(run), hint=f"go on with: rung train --resume {run}"
        )
    return list(found.values())[-1]


def require_empty(folder: Path, *, hint: str = "give another --out, or --resume this run") -> None:
    """Raise UsageError when something stands at `folder` already: nothing is ever written over."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("the output folder is not empty", where=str(folder), hint=hint)


def make_output_folder(folder: Path) -> None:
    """Make `folder` unless it is there already. RunFolderError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"the output folder cannot be made ({error.strerror})", where=str(folder), hint="give another --out"
        ) from error


def default_folder(texts: Sequence[str | Path]) -> Path:
    """`runs/NAME`, after the first text; `runs/NAME-2` and so on where that stands already."""
    return free_folder(Path(texts[0]).resolve().name.split(".")[0] or "run")


def free_folder(name: str) -> Path:
    """`runs/NAME`; `runs/NAME-2` and so on where that stands already."""
    folder = Path("runs") / name
    number = 2
    while folder.exists():
        folder = Path("runs") / f"{name}-{number}"
        number += 1
    return folder
