"""Someone's language model and raw text in, the model carried on to that text out."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rung.data.cache import cache_folder
from rung.data.corpus import prepare_corpus
from rung.data.pack import PackedTokens
from rung.data.shards import TokenShards
from rung.data.tokenise import tokenise_corpus
from rung.data.tokenizer import Tokenizer
from rung.evaluation.bits_per_byte import NAME, UNIT, bits_per_byte
from rung.evaluation.intervals import compare
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.nets.adapters import load_adapter
from rung.nets.architectures import FAMILIES, unsupported
from rung.nets.body import carries_state
from rung.nets.feedforward_language_model import FeedForwardLM
from rung.nets.language_models import Net, load_language_model, save_language_model
from rung.nets.ngram import MODEL_TYPE as NGRAM
from rung.nets.pretrained import CONFIG, read_config_file
from rung.nets.recurrent_language_model import RecurrentLM
from rung.objectives.next_token import NextToken
from rung.records import ItemScores, Record
from rung.tasks.bases import resolve_base
from rung.tasks.classification.network_training import device
from rung.tasks.run import Run
from rung.tasks.text.tuning_plan import VALIDATION_ROWS, TextTuningPlan, make_plan
from rung.tasks.text.tuning_recipe import TextTuningRecipe
from rung.tasks.text.tuning_summary import AFTER, BEFORE, GAIN, TextTuned
from rung.tasks.text_preparation import PreparedText, prepare_text
from rung.tasks.text_reading import TextReading
from rung.tasks.tuning.folder import CONFIGURATION, TOKENIZER, copy_files, open_language_model, save_tuned
from rung.tasks.tuning.frame import Job, Session
from rung.tasks.tuning.method import apply_method
from rung.tasks.tuning.stepping import compute_dtype, loop_settings, optimizer_of
from rung.tasks.tuning.tuner import Outcome, Tuner, Tuning
from rung.training.contracts import LoopResult, Validation
from rung.training.distributed import alone
from rung.training.validation import mean_loss

_SAMPLE_TOKENS = 60


class TextTuning(Tuning[TextTuningRecipe, TextTuned]):
    """Carries a language model on with texts, which are cleaned, deduplicated and split as by `rung train`, and read
    with the base's own tokenizer. Bits per byte before and after, and the interval of their paired difference, are
    measured on `test`, else on the held-out part of the text, which chooses nothing: the last weights are kept.
    """

    summary = TextTuned
    chooses_weights = False

    def __init__(self, recipe: TextTuningRecipe, session: Session) -> None:
        """Read it all; a base that is no language model is refused before any text is read."""
        super().__init__(recipe, session)
        self.folder = resolve_base(recipe.base)
        _require_network(self.folder)
        tokenizer, progress = Tokenizer.load(self.folder), session.progress
        self.text: PreparedText = prepare_text(recipe.reading, progress, tokenizer=tokenizer)
        self.measured: TokenShards = self.text.valid
        if recipe.test:
            paths, cache = [Path(name) for name in recipe.test], cache_folder()
            corpus = prepare_corpus([], cache_dir=cache, valid_paths=paths, progress=progress)
            self.measured = tokenise_corpus(corpus, tokenizer, cache_dir=cache, progress=progress)["valid"]

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        text, measured = self.text, self.measured
        return {
            "sha256": text.corpus.sha256,
            "train_sha256": text.train.sha256,
            "measured_sha256": measured.sha256,
            "tokenizer_sha256": text.tokenizer.sha256,
            "train_bytes": text.train.num_bytes,
            "train_tokens": text.train.num_tokens,
            "train_documents": text.train.num_documents,
            "measured_bytes": measured.num_bytes,
            "measured_documents": measured.num_documents,
        }

    def plan(self, seconds: float | None) -> TextTuningPlan:
        """Fill the gaps of the recipe; timing moves no weight."""
        train = self.text.train
        return make_plan(
            self.recipe, self.net, tokens=train.num_tokens, bytes_per_token=train.bytes_per_token, seconds=seconds
        )

    @cached_property
    def net(self) -> Net:
        """The base, ready to be tuned."""
        net = self._base()
        apply_method(net, self.recipe.tuning, seed=self.recipe.seed)
        return net

    def _base(self) -> Net:
        """The base as it was, where it shall compute."""
        return open_language_model(self.folder).to(device())

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which the text is read once."""
        training = self.recipe.training
        return self.text.train.num_tokens / ((training.context_length or 1) * training.rows)

    def job(self, run: Run) -> Job:
        """The network, its text, and how both are trained."""
        recipe, net = self.recipe, self.net
        net.compute_dtype = compute_dtype(recipe)
        reading = self._reading()
        return Job(
            net=net,
            objective=reading.objective,
            batches=reading.batches,
            optimizer=optimizer_of(net, recipe),
            settings=loop_settings(recipe, keep_last=2),
            save=lambda folder: self._save(run, folder),
            load=self._load,
            validate=reading.validate,
        )

    def _reading(self) -> TextReading | _Rows:
        net, training = self.net, self.recipe.training
        if isinstance(net, RecurrentLM | FeedForwardLM):
            rows = {"training.batch_size": training.batch_size, "training.micro_batch_size": training.micro_batch_size}
            recipe, world = self.recipe.reading.with_overrides(rows), alone(next(net.parameters()).device)
            tokens = VALIDATION_ROWS * training.rows * net.config.window
            return TextReading(net, recipe, self.text, world, validation_tokens=tokens)
        return _Rows(net, self.text, self.recipe)

    def _save(self, run: Run, folder: Path) -> None:
        """Fill a checkpoint's folder: the whole network, or the adapter and the record of its base."""
        method = self.recipe.tuning
        if method.kind == "lora":
            save_tuned(self.net, folder, method=method, base=run.header["parent"], task_type="CAUSAL_LM")
            copy_files(self.folder, folder, CONFIGURATION)
        else:
            save_language_model(self.net, folder)
        copy_files(self.folder, folder, TOKENIZER)

    def _load(self, folder: Path) -> None:
        """Give the network the weights of a checkpoint."""
        if self.recipe.tuning.kind == "lora":
            load_adapter(self.net, folder)
        else:
            self.net.load_state_dict(load_language_model(folder).state_dict())

    def summarise(self, run: Run, result: LoopResult | None) -> TextTuned:
        """How training went, with the number of tokens."""
        return replace(super().summarise(run, result), tokens=result.targets if result else 0)

    def measure(self, weights: Path) -> Outcome:  # noqa: ARG002 - the network has them
        """Measure base and tuned network on the same held-out text."""
        untuned = self._base()
        untuned.compute_dtype = compute_dtype(self.recipe)
        (after, scores), (before, scores_before) = self._measured(self.net), self._measured(untuned)
        gain = compare(scores_before, scores, name=NAME, unit=UNIT)
        options = SamplingOptions(temperature=0.8, top_p=0.95, max_tokens=_SAMPLE_TOKENS, seed=self.recipe.seed)
        (sample,) = Engine(self.net, self.text.tokenizer).generate("", options)
        before, gain = (one.model_copy(update={"name": name}) for one, name in ((before, BEFORE), (gain, GAIN)))
        return Outcome([after, before, gain], {AFTER: scores, BEFORE: scores_before}, {"sample": sample.text})

    def _measured(self, net: Net) -> tuple[Record, ItemScores]:
        training = self.recipe.training
        context = None if carries_state(net) else training.context_length
        return bits_per_byte(
            net,
            self.measured,
            context_length=context,
            batch_size=training.rows_at_once,
            max_bytes=training.evaluation_bytes,
            progress=self.session.progress,
        )


def _require_network(folder: Path) -> None:
    """Raise RunFolderError when `folder` holds no language model that is a network."""
    kind = str(read_config_file(folder).get("model_type"))
    known = {*FAMILIES["decoders"], *FAMILIES["Rung's own language models"]} - {NGRAM}
    if kind not in known:
        raise unsupported(kind, str(folder / CONFIG), usable=sorted(known))


class _Rows:
    """How a decoder reads text: rows of one length in random order; validated on some of the held-out ones."""

    def __init__(self, net: Net, text: PreparedText, recipe: TextTuningRecipe) -> None:
        length = recipe.training.context_length or 1
        self.objective = NextToken()
        self.batches = PackedTokens(text.train, context_length=length, seed=recipe.seed)
        self._held_out = PackedTokens(text.valid, context_length=length, seed=0)
        self._net, self._valid, self._rows = net, text.valid, recipe.training.rows_at_once

    def validate(self) -> Validation:
        """The mean loss on held-out text."""
        found = mean_loss(
            self._net,
            self.objective,
            self._held_out,
            samples=min(self._held_out.num_windows, VALIDATION_ROWS),
            batch_size=self._rows,
            world=alone(next(self._net.parameters()).device),
        )
        per_byte = found["loss"] / math.log(2) / self._valid.bytes_per_token
        return Validation(found["loss"], {"bits_per_byte": per_byte})


TUNER = Tuner(
    recipe=TextTuningRecipe,
    open=TextTuning,
    items="texts",
    example="rung tune smollm2 my_texts/ --task text",
    budget={"training.epochs": 1.0},
    places={"data": "text.files", "valid": "text.valid", "test": "test"},
)
