"""A trained language model with the verbs it supports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.data.tokenizer import Tokenizer
from rung.evaluation.scoring import TokenScores, score
from rung.generation.engine import Engine, Generation, Piece
from rung.generation.matrices import Precision
from rung.generation.options import SamplingOptions
from rung.nets.language_models import Net
from rung.nets.ngram import MODEL_TYPE as NGRAM
from rung.nets.ngram import NgramModel, load_ngram
from rung.nets.pretrained import read_config_file
from rung.tasks.bases import find_model
from rung.tasks.run import model_folder
from rung.tasks.tuning.folder import open_language_model

if TYPE_CHECKING:
    from rung.tasks.chat.talking import ChatAnswer, Talker
    from rung.tasks.evaluating import EvaluationSummary


class LanguageModel:
    """A language model and its tokenizer, from a run folder, a checkpoint or a Hugging Face folder.

    `model.generate("Once upon a time", temperature=0.8, max_tokens=100)` returns text with its log-probabilities,
    `stream` yields it piece by piece, `score` gives the log-probability of each token of a text, `evaluate` bits per
    byte with an interval. `chat` answers messages, if the folder has a chat template.
    """

    def __init__(
        self,
        folder: Path,
        net: Net | NgramModel,
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
        self._talker: Talker | None = None

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

    @property
    def talker(self) -> Talker:
        """The model as a partner of conversations, made when first needed. TokenizerError without a chat template."""
        if self._talker is None:
            from rung.tasks.chat.talking import Talker

            self._talker = Talker.of_folder(self.engine, self.tokenizer, self.folder)
        return self._talker

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> ChatAnswer:
        """Answer `messages` (`[{"role": "user", "content": "..."}]`); `options` are those of `SamplingOptions`.

        Where they do not fit the context, whole oldest turns are left out, and the answer's `dropped` counts them.
        Raises TokenizerError without a chat template, DataError for turns out of order, GenerationError when the last
        turn alone does not fit.
        """
        from rung.tasks.chat.talking import chat

        return chat(self.talker, messages, **options)

    def score(self, text: str) -> TokenScores:
        """The log-probability of each token of `text`."""
        return score(self.net, self.tokenizer, text)

    def evaluate(self, texts: Sequence[str | Path] = (), **options: Any) -> EvaluationSummary:
        """Bits per byte on `texts`; see `rung.evaluate`."""
        from rung.tasks.evaluating import evaluate

        return evaluate(self.folder, texts, **options)


def load(folder: str | Path, *, precision: Precision = "fp32", invariant: bool = False) -> LanguageModel:
    """Open a language model: a run folder, a checkpoint, or what else `rung.tasks.bases.find_model` finds.

    A run that is not finished gives its newest checkpoint. Hashes are checked where the folder lists them. What it
    writes is computed in `precision`: "fp32", "bf16" (several texts at once go faster) or "int8" (one text goes
    faster); with `invariant`, scores have the same bits whatever else is written at the same time (slower).

    Raises RunFolderError when there is no model or it is damaged.
    """
    path = model_folder(find_model(folder))
    is_counted = read_config_file(path).get("model_type") == NGRAM
    net, tokenizer = load_ngram(path) if is_counted else open_language_model(path), Tokenizer.load(path)
    return LanguageModel(path, net, tokenizer, precision=precision, invariant=invariant)
