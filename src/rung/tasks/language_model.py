"""A trained language model with the verbs it supports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.data.tokenizer import Tokenizer
from rung.errors import UsageError
from rung.evaluation.scoring import TokenScores, score
from rung.generation.engine import Engine, Generation, Piece
from rung.generation.matrices import Precision
from rung.generation.options import SamplingOptions
from rung.nets.language_models import Net
from rung.nets.lora import set_adapter
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

    Several adapters can share a base, which is in memory once; one of them acts, or none:

        model = rung.load("smollm2")
        model.add_adapter("pirate", "runs/pirate")
        model.add_adapter("formal", "runs/formal")
        model.use_adapter("pirate")
        model.use_adapter(None)   # the base again, to the last bit
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
        self._adapters: dict[str, Path] = {}
        self._adapter: str | None = None

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that were added, in order."""
        return tuple(self._adapters)

    def add_adapter(self, name: str, adapter: str | Path) -> None:
        """Add an adapter on this base - a run tuned with LoRA, or a folder of peft's - that `use_adapter` lets act.

        Raises UsageError when it is none, or the name is taken; RunFolderError when it belongs to another base, or
        brings more than an adapter (a head, a tokenizer): such a one is opened by itself, with `rung.load`.
        """
        from rung.tasks.tuning.sharing import put_adapter_on

        if isinstance(self.net, NgramModel):
            raise UsageError("a counted model has no adapters", where=str(self.folder), hint="train it on more text")
        self._adapters[name] = put_adapter_on(self.net, self.tokenizer, self.folder, adapter, name)

    def use_adapter(self, name: str | None) -> None:
        """Let the adapter `name` act from now on; None: the base as it was. UsageError for a name that was not added.

        `engine` and `talker` are made anew for it, `talker` with the adapter's chat template.
        """
        if name is not None and name not in self._adapters:
            known = ", ".join(self._adapters) or "none; add_adapter adds one"
            raise UsageError(f"there is no adapter named {name!r} here", hint=f"there are: {known}")
        if not isinstance(self.net, NgramModel):
            set_adapter(self.net, name)
        self._adapter, self._engine, self._talker = name, None, None

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

            folder = self.folder if self._adapter is None else self._adapters[self._adapter]
            self._talker = Talker.of_folder(self.engine, self.tokenizer, folder)
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
        """Bits per byte on `texts`; see `rung.evaluate`. UsageError while an adapter acts: it measures folders."""
        if self._adapter is not None:
            folder = self._adapters[self._adapter]
            raise UsageError("an adapter acts, and folders are measured", hint=f"rung.evaluate({str(folder)!r}, ...)")
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
