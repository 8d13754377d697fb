"""A trained language model with the verbs it supports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.data.tokenizer import Tokenizer
from rung.errors import RunFolderError
from rung.evaluation.scoring import TokenScores, score
from rung.generation.engine import Engine, Generation, Piece
from rung.generation.matrices import Precision
from rung.generation.options import SamplingOptions
from rung.nets.language_models import Net, load_language_model
from rung.runfolder import HEADER_NAME, read_header, verify
from rung.training.checkpoint import checkpoints

if TYPE_CHECKING:
    from rung.tasks.evaluating import EvaluationSummary


class LanguageModel:
    """A language model and its tokenizer, from a run folder, a checkpoint or a Hugging Face folder.

    `model.generate("Once upon a time", temperature=0.8, max_tokens=100)` returns text with its log-probabilities,
    `stream` yields it piece by piece, `score` gives the log-probability of each token of a text, `evaluate` bits per
    byte with an interval.
    """

    def __init__(
        self,
        folder: Path,
        net: Net,
        tokenizer: Tokenizer,
        *,
        precision: Precision = "fp32",
        invariant: bool = False,
    ) -> None:
        """Use `rung.load(folder)`."""
        self.folder = folder
        self.net = net
        self.tokenizer = tokenizer
        self._precision: Precision = precision
        self._invariant = invariant
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The token engine, made when first needed."""
        if self._engine is None:
            self._engine = Engine(self.net, self.tokenizer, precision=self._precision, invariant=self._invariant)
        return self._engine

    def generate(self, prompts: str | Sequence[str] = "", **options: Any) -> list[Generation]:
        """Write on from each prompt; `options` are those of `SamplingOptions`: temperature, top_p, max_tokens, seed."""
        return self.engine.generate(prompts, SamplingOptions(**options))

    def stream(self, prompt: str = "", **options: Any) -> Iterator[Piece]:
        """Write on from a prompt, piece by piece as it is drawn."""
        return self.engine.stream(prompt, SamplingOptions(**options))

    def score(self, text: str) -> TokenScores:
        """The log-probability of each token of `text`."""
        return score(self.net, self.tokenizer, text)

    def evaluate(self, texts: Sequence[str | Path] = (), **options: Any) -> EvaluationSummary:
        """Bits per byte on `texts`; see `rung.evaluate`."""
        from rung.tasks.evaluating import evaluate

        return evaluate(self.folder, texts, **options)


def load(folder: str | Path, *, precision: Precision = "fp32", invariant: bool = False) -> LanguageModel:
    """Open a language model: a run folder, a checkpoint, or a Hugging Face folder of a known architecture.

    A run that is not finished gives its newest checkpoint. Hashes are checked where the folder lists them. What it
    writes is computed in `precision`: "fp32", "bf16" (several texts at once go faster) or "int8" (one text goes
    faster); with `invariant`, scores have the same bits whatever else is written at the same time (slower).

    Raises RunFolderError when there is no model or it is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RunFolderError("there is no such folder", where=str(path), hint="give the folder that training printed")
    if (path / HEADER_NAME).exists():
        header = read_header(path)
        if header.get("kind") == "run" and header.get("state") != "finished":
            path = _newest_checkpoint(path)
        verify(path)
    net, tokenizer = load_language_model(path), Tokenizer.load(path)
    return LanguageModel(path, net, tokenizer, precision=precision, invariant=invariant)


def _newest_checkpoint(run: Path) -> Path:
    found = checkpoints(run)
    if not found:
        raise RunFolderError(
            "this run has no checkpoint yet", where=str(run), hint=f"go on with: rung train --resume {run}"
        )
    return list(found.values())[-1]
