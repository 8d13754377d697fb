"""Someone's language model and raw text in, the model carried on to that text out: `tune`, `plan`, `resume`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

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
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.tasks.bases import base_record, resolve_base
from rung.tasks.run import Run, free_folder, require_empty
from rung.tasks.text_preparation import PreparedText, prepare_text
from rung.tasks.text_reading import TextReading
from rung.tasks.tuning.folder import CONFIGURATION, TOKENIZER, copy_files, open_language_model, save_tuned
from rung.tasks.tuning.frame import Job, Session, open_interrupted, require_unchanged, run_loop
from rung.tasks.tuning.method import TuningMethod, apply_method, gradual_unfreezing
from rung.tasks.tuning.text_plan import (
    VALIDATION_ROWS,
    TextTuningPlan,
    compute_dtype,
    loop_settings,
    make_plan,
    optimizer_of,
)
from rung.tasks.tuning.text_recipe import TextTuningRecipe, wished
from rung.tasks.tuning.text_summary import BEFORE, GAIN, TextTuned, card
from rung.tasks.tuning.tune import TUNED_FOR
from rung.training.checkpoint import Checkpoint, latest_good
from rung.training.contracts import LoopResult, Validation
from rung.training.distributed import alone
from rung.training.meter import SILENT_DISPLAY, Display
from rung.training.precision import tune_allocator
from rung.training.validation import mean_loss

Files = Sequence[str | Path]

_SAMPLE_TOKENS = 60


def tune(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    seed: int | None = None,
    threads: int | None = None,
    valid: Files = (),
    test: Files = (),
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
    started: float | None = None,
) -> TextTuned:
    """Carry the language model `base` on with the texts `data`, and leave a run folder: a whole model, or an adapter.

    The texts are cleaned, deduplicated and split as by `rung train`, and read with the base's own tokenizer. `method`
    (default: full) says which weights move. `minutes` is the wall time of it all, counted from `started` (a reading of
    `time.monotonic()`; default: now); `epochs` (default: 1) or `steps` read no clock. Bits per byte before and after,
    and the interval of their paired difference, are measured on `test`, else on the held-out part of the text, which
    chooses nothing: the weights of the last step are kept.

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError or RunFolderError, each saying what to do.
    """
    began = time.monotonic() if started is None else started
    recipe = _recipe(base, data, method, minutes, epochs, steps, seed, threads, valid, test, overrides)
    out = out or free_folder(f"{Path(recipe.text.files[0]).name.split('.')[0]}-{Path(base).name.split('.')[0]}")
    require_empty(out)
    session = _session(progress, display, began)
    deadline = session.deadline(recipe.training.minutes)
    opened = _Opened.open(recipe, progress)
    net, made = _planned(recipe, opened, deadline)
    for line in made.lines():
        progress.say(line)
    record = base_record(opened.folder)
    run = Run.create(out, recipe=made.recipe, plan=made.to_json(), data=opened.describe(), parent=record)
    run.header[TUNED_FOR] = "text"
    run.write("planned")
    latest = None if deadline is None else deadline - made.seconds_after
    return _Tuning(run, made.recipe, opened, session, net).go(deadline=latest)


def plan(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
    valid: Files = (),
    test: Files = (),
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
    started: float | None = None,
) -> TextTuningPlan:
    """Do all that `tune` does before tuning, and return what it would do. Arguments and errors as in `tune`."""
    began = time.monotonic() if started is None else started
    recipe = _recipe(base, data, method, minutes, epochs, steps, seed, threads, valid, test, overrides)
    session = _session(progress, SILENT_DISPLAY, began)
    return _planned(recipe, _Opened.open(recipe, progress), session.deadline(recipe.training.minutes))[1]


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> TextTuned:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its base or text have changed since.
    """
    opened_run = open_interrupted(run, threads=threads)
    recipe = TextTuningRecipe.parse(opened_run.header["recipe"], where=str(opened_run.folder / "rung.json"))
    session = _session(progress, display, time.monotonic())
    opened = _Opened.open(recipe, progress)
    sha256 = opened.describe()["sha256"]
    require_unchanged(opened_run, base=recipe.base, data_sha256=sha256, files=recipe.text.files)
    checkpoint = latest_good(opened_run.folder, progress.say)
    tuning = _Tuning(opened_run, recipe, opened, session, opened.prepared(recipe))
    return tuning.go(deadline=None, checkpoint=checkpoint)


def _recipe(  # noqa: PLR0917 - the arguments of `tune`, one by one
    base: str | Path,
    data: Files,
    method: TuningMethod | None,
    minutes: float | None,
    epochs: float | None,
    steps: int | None,
    seed: int | None,
    threads: int | None,
    valid: Files,
    test: Files,
    overrides: Mapping[str, Any] | None,
) -> TextTuningRecipe:
    given = {
        "training.minutes": minutes,
        "training.epochs": epochs,
        "training.steps": steps,
        "training.threads": threads,
        "seed": seed,
        "text.valid": tuple(map(str, valid)),
        "test": tuple(map(str, test)),
    }
    return wished(base_record(resolve_base(base))["origin"], data, method, overrides, given)


def _session(progress: Progress, display: Display, began: float) -> Session:
    tune_allocator()
    return Session(progress, display, began)


def _planned(recipe: TextTuningRecipe, opened: _Opened, deadline: float | None) -> tuple[Net, TextTuningPlan]:
    """The network, ready to be tuned, and the plan; timing moves no weight."""
    train = opened.text.train
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    net = opened.prepared(recipe)
    return net, make_plan(recipe, net, tokens=train.num_tokens, bytes_per_token=train.bytes_per_token, seconds=left)


@dataclass(frozen=True)
class _Opened:
    """The base's folder and tokenizer, the text as the base reads it, and what is measured on."""

    folder: Path
    text: PreparedText
    measured: TokenShards

    @classmethod
    def open(cls, recipe: TextTuningRecipe, progress: Progress) -> _Opened:
        """Read all of it; a base that is no language model is refused before any text is read."""
        folder = resolve_base(recipe.base)
        _require_network(folder)
        tokenizer = Tokenizer.load(folder)
        text = prepare_text(recipe.reading, progress, tokenizer=tokenizer)
        measured = text.valid
        if recipe.test:
            paths, cache = [Path(name) for name in recipe.test], cache_folder()
            corpus = prepare_corpus([], cache_dir=cache, valid_paths=paths, progress=progress)
            measured = tokenise_corpus(corpus, tokenizer, cache_dir=cache, progress=progress)["valid"]
        return cls(folder, text, measured)

    def network(self) -> Net:
        """The base, where it shall compute."""
        return open_language_model(self.folder).to("cuda" if torch.cuda.is_available() else "cpu")

    def prepared(self, recipe: TextTuningRecipe) -> Net:
        """The base, ready to be tuned."""
        net = self.network()
        apply_method(net, recipe.tuning, seed=recipe.seed)
        return net

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        text = self.text
        return {
            "sha256": text.corpus.sha256,
            "train_sha256": text.train.sha256,
            "measured_sha256": self.measured.sha256,
            "tokenizer_sha256": text.tokenizer.sha256,
            "train_bytes": text.train.num_bytes,
            "train_tokens": text.train.num_tokens,
            "train_documents": text.train.num_documents,
            "measured_bytes": self.measured.num_bytes,
            "measured_documents": self.measured.num_documents,
        }


def _require_network(folder: Path) -> None:
    """Raise RunFolderError when `folder` holds no language model that is a network."""
    kind = str(read_config_file(folder).get("model_type"))
    known = {*FAMILIES["decoders"], *FAMILIES["Rung's own language models"]} - {NGRAM}
    if kind not in known:
        raise unsupported(kind, str(folder / CONFIG))


class _Tuning:
    """Tunes a run by its recipe, measures it, and makes its folder a model: the same path for new and resumed runs."""

    def __init__(self, run: Run, recipe: TextTuningRecipe, opened: _Opened, session: Session, net: Net) -> None:
        """Take a run whose recipe has no gaps, its base and text, and the network, ready to be tuned."""
        self.run, self.recipe, self.opened, self.session, self.net = run, recipe, opened, session, net
        self.method = recipe.tuning
        net.compute_dtype = compute_dtype(recipe)

    def go(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> TextTuned:
        """Tune from `checkpoint` or from the base until the schedule ends."""
        torch.set_num_threads(self.recipe.training.threads or torch.get_num_threads())
        job = self._job(self.net)
        result, _ = run_loop(self.run, self.recipe, job, self.session, deadline=deadline, checkpoint=checkpoint)
        summary = self._summary(result)
        return summary if result.ended == "interrupted" else self._publish(result, summary)

    def _job(self, net: Net) -> Job:
        recipe = self.recipe
        settings = loop_settings(recipe)
        thaw = None
        if self.method.gradual:
            per_epoch = math.ceil(self._rows_of_text() / settings.batch_size)
            planned = self.run.header["plan"]["epochs"]  # as planned: a deadline may move the end later
            thaw = gradual_unfreezing(net, steps_per_epoch=per_epoch, epochs=planned)
        reading = self._reading(net)
        return Job(
            net,
            reading.objective,
            reading.batches,
            optimizer_of(net, recipe),
            settings,
            save=lambda folder: self._save(net, folder),
            load=lambda folder: self._load(net, folder),
            validate=reading.validate,
            thaw=thaw,
        )

    def _reading(self, net: Net) -> TextReading | _Rows:
        if isinstance(net, RecurrentLM | FeedForwardLM):
            training = self.recipe.training
            rows = {"training.batch_size": training.batch_size, "training.micro_batch_size": training.micro_batch_size}
            recipe, world = self.recipe.reading.with_overrides(rows), alone(next(net.parameters()).device)
            tokens = VALIDATION_ROWS * (training.batch_size or 1) * net.config.window
            return TextReading(net, recipe, self.opened.text, world, validation_tokens=tokens)
        return _Rows(net, self.opened.text, self.recipe)

    def _rows_of_text(self) -> int:
        return math.ceil(self.opened.text.train.num_tokens / (self.recipe.training.context_length or 1))

    def _save(self, net: Net, folder: Path) -> None:
        """Fill a checkpoint's folder: the whole network, or the adapter and the record of its base."""
        if self.method.kind == "lora":
            save_tuned(net, folder, method=self.method, base=self.run.header["parent"], task_type="CAUSAL_LM")
            copy_files(self.opened.folder, folder, CONFIGURATION)
        else:
            save_language_model(net, folder)
        copy_files(self.opened.folder, folder, TOKENIZER)

    def _load(self, net: Net, folder: Path) -> None:
        """Give the network the weights of a checkpoint."""
        if self.method.kind == "lora":
            load_adapter(net, folder)
        else:
            net.load_state_dict(load_language_model(folder).state_dict())

    def _publish(self, result: LoopResult, summary: TextTuned) -> TextTuned:
        """Measure base and tuned network on the same held-out text, and make the run folder the tuned model."""
        after, scores = self._measured(self.net.eval())
        before, scores_before = self._measured(self._untuned())
        gain = compare(scores_before, scores, name=NAME, unit=UNIT)
        options = SamplingOptions(temperature=0.8, top_p=0.95, max_tokens=_SAMPLE_TOKENS, seed=self.recipe.seed)
        (sample,) = Engine(self.net, self.opened.text.tokenizer).generate("", options)
        summary = replace(
            summary,
            before=before.model_copy(update={"name": BEFORE}),
            after=after,
            gain=gain.model_copy(update={"name": GAIN}),
            sample=sample.text,
            seconds=self.session.seconds,
        )
        text = card(self.run, TextTuningRecipe.parse(self.run.header["recipe"]), summary)
        by_item = {NAME: scores, BEFORE: scores_before}
        self.run.publish(result.checkpoint, card=text, records=summary.records, scores=by_item)
        return summary

    def _untuned(self) -> Net:
        """The base as it was."""
        net = self.opened.network()
        net.compute_dtype = compute_dtype(self.recipe)
        return net

    def _measured(self, net: Net) -> tuple[Record, ItemScores]:
        training = self.recipe.training
        context = None if carries_state(net) else training.context_length
        return bits_per_byte(
            net,
            self.opened.measured,
            context_length=context,
            batch_size=training.micro_batch_size or 1,
            max_bytes=training.evaluation_bytes,
            progress=self.session.progress,
        )

    def _summary(self, result: LoopResult) -> TextTuned:
        plan, train = self.run.header["plan"], self.opened.text.train
        return TextTuned(
            run=self.run.folder,
            ended=result.ended,
            steps=result.step,
            tokens=result.targets,
            epochs=result.targets / train.num_tokens,
            parameters=plan["parameters"],
            trained=plan["trained_parameters"],
            seconds=self.session.seconds,
            tokens_per_second=result.targets / result.seconds if result.seconds else 0.0,
            plan=plan,
            skipped=result.skipped,
        )


class _Rows:
    """How a decoder reads text: rows of one length in random order; validated on some of the held-out ones."""

    def __init__(self, net: Net, text: PreparedText, recipe: TextTuningRecipe) -> None:
        length = recipe.training.context_length or 1
        self.objective = NextToken()
        self.batches = PackedTokens(text.train, context_length=length, seed=recipe.seed)
        self._held_out = PackedTokens(text.valid, context_length=length, seed=0)
        self._net, self._valid, self._rows = net, text.valid, recipe.training.micro_batch_size or 1

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
