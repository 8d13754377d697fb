"""Someone's encoder-decoder and pairs of texts in, the same network tuned to them out: `tune`, `plan`, `resume`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rung.evaluation.translation import require_sacrebleu
from rung.nets.adapters import load_adapter
from rung.nets.encoder_decoder_folder import SequenceNet, load_encoder_decoder, save_encoder_decoder
from rung.nets.pretrained import GENERATION_CONFIG
from rung.objectives.sequence_to_sequence import SequenceToSequence
from rung.progress import SILENT, Progress
from rung.runfolder import write_json
from rung.tasks.bases import base_record, resolve_base
from rung.tasks.rewriting.measuring import Measured, fitting, measure
from rung.tasks.rewriting.preparation import read_split
from rung.tasks.rewriting.summary import Example
from rung.tasks.rewriting.tuning_base import TuningBase, generation_config
from rung.tasks.rewriting.tuning_plan import (
    RewriteTuningPlan,
    TuningPairs,
    loop_settings,
    make_plan,
    new_network,
    optimizer_of,
)
from rung.tasks.rewriting.tuning_recipe import RewriteTuningRecipe, wished
from rung.tasks.rewriting.tuning_summary import RewritingTuned, card, compared
from rung.tasks.run import Run, free_folder, require_empty
from rung.tasks.tuning.folder import CONFIGURATION, TOKENIZER, copy_files, save_tuned
from rung.tasks.tuning.frame import Job, Session, open_interrupted, require_unchanged, run_loop
from rung.tasks.tuning.method import TuningMethod, gradual_unfreezing
from rung.tasks.tuning.tune import TUNED_FOR
from rung.training.checkpoint import Checkpoint, latest_good
from rung.training.contracts import LoopResult, Validation
from rung.training.distributed import alone
from rung.training.meter import SILENT_DISPLAY, Display
from rung.training.precision import tune_allocator
from rung.training.validation import mean_loss

Files = Sequence[str | Path]

_EXAMPLES = 3


def tune(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    source: str | None = None,
    target: str | None = None,
    prefix: str | None = None,
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
) -> RewritingTuned:
    """Tune the encoder-decoder `base` to the pairs in `data`, and leave a run folder that transformers opens too.

    `data` are tables with the columns `source` and `target`, or two files aligned line by line; validation and test
    pairs are split off unless files are given. `prefix` is put before every source, as T5 was taught its tasks
    ("summarize: "). `method` (default: full) says which weights move; with LoRA the folder is an adapter. `minutes` is
    the wall time of it all, counted from `started` (a reading of `time.monotonic()`; default: now); `epochs` (default:
    3) or `steps` read no clock. BLEU, chrF and, for long targets, ROUGE are measured on the same test pairs before and
    after, with the interval of their paired difference; the validation pairs choose the weights.

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError, EvaluationError or RunFolderError, each saying
    what to do.
    """
    session = Session(progress, display, time.monotonic() if started is None else started)
    recipe = _recipe(
        base, data, method, source, target, prefix, minutes, epochs, steps, seed, threads, valid, test, overrides
    )
    out = out or free_folder(f"{Path(recipe.pairs.files[0]).name.split('.')[0]}-{Path(base).name.split('.')[0]}")
    require_empty(out)
    opened = _Opened.open(recipe, progress)
    deadline = session.deadline(recipe.training.minutes)
    made = _planned(recipe, opened, deadline)
    for line in made.lines():
        progress.say(line)
    run = Run.create(
        out,
        recipe=made.recipe,
        plan=made.to_json(),
        data=opened.describe(),
        parent=base_record(opened.base.folder),
        task="rewriting",
    )
    run.header[TUNED_FOR] = "rewrite"
    run.write("planned")
    return _Tuning(run, made.recipe, opened, session).go(
        deadline=None if deadline is None else deadline - made.seconds_after
    )


def plan(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    source: str | None = None,
    target: str | None = None,
    prefix: str | None = None,
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
) -> RewriteTuningPlan:
    """Do all that `tune` does before tuning, and return what it would do. Arguments and errors as in `tune`."""
    session = Session(progress, SILENT_DISPLAY, time.monotonic() if started is None else started)
    recipe = _recipe(
        base, data, method, source, target, prefix, minutes, epochs, steps, seed, threads, valid, test, overrides
    )
    return _planned(recipe, _Opened.open(recipe, progress), session.deadline(recipe.training.minutes))


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> RewritingTuned:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its base or pairs have changed since.
    """
    session = Session(progress, display, time.monotonic())
    interrupted = open_interrupted(run, threads=threads)
    recipe = RewriteTuningRecipe.parse(interrupted.header["recipe"], where=str(interrupted.folder / "rung.json"))
    opened = _Opened.open(recipe, progress)
    sha256 = opened.describe()["sha256"]
    require_unchanged(interrupted, base=recipe.base, data_sha256=sha256, files=recipe.pairs.files)
    checkpoint = latest_good(interrupted.folder, progress.say)
    return _Tuning(interrupted, recipe, opened, session).go(deadline=None, checkpoint=checkpoint)


def _recipe(  # noqa: PLR0917 - the arguments of `tune`, one by one
    base: str | Path,
    data: Files,
    method: TuningMethod | None,
    source: str | None,
    target: str | None,
    prefix: str | None,
    minutes: float | None,
    epochs: float | None,
    steps: int | None,
    seed: int | None,
    threads: int | None,
    valid: Files,
    test: Files,
    overrides: Mapping[str, Any] | None,
) -> RewriteTuningRecipe:
    given = {
        "pairs.source": source,
        "pairs.target": target,
        "pairs.prefix": prefix,
        "pairs.valid": tuple(map(str, valid)),
        "pairs.test": tuple(map(str, test)),
        "training.minutes": minutes,
        "training.epochs": epochs,
        "training.steps": steps,
        "training.threads": threads,
        "seed": seed,
    }
    return wished(base_record(resolve_base(base))["origin"], data, method, overrides, given)


def _planned(recipe: RewriteTuningRecipe, opened: _Opened, deadline: float | None) -> RewriteTuningPlan:
    left = None if deadline is None else deadline - time.monotonic()
    return make_plan(recipe, opened.base, opened.pairs, _device(), seconds=left)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class _Opened:
    """The base, and the pairs as it reads them."""

    base: TuningBase
    pairs: TuningPairs

    @classmethod
    def open(cls, recipe: RewriteTuningRecipe, progress: Progress) -> _Opened:
        """Read both; a base of another kind is refused before any pair is read."""
        require_sacrebleu()
        tune_allocator()
        base = TuningBase.open(recipe.base)
        split = read_split(recipe.pairs, seed=recipe.seed, progress=progress)
        return cls(base, TuningPairs.encode(recipe, base, split))

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        split = self.pairs.split
        return {
            "sha256": split.sha256,
            "source": split.train.source_name,
            "target": split.train.target_name,
            "train_pairs": len(self.pairs.train),
            "valid_pairs": len(self.pairs.valid),
            "test_pairs": len(split.test),
            "test_sha256": split.test.sha256,
            "remarks": list(self.pairs.remarks),
        }


class _Tuning:
    """Tunes a run by its recipe, measures it, and makes its folder a model: the same path for new and resumed runs."""

    def __init__(self, run: Run, recipe: RewriteTuningRecipe, opened: _Opened, session: Session) -> None:
        """Take a run whose recipe has no gaps, its base and pairs."""
        self.run, self.recipe, self.session = run, recipe, session
        self.base, self.pairs = opened.base, opened.pairs
        targets = self.pairs.train.targets.lengths
        self.settings = self.base.tuned_settings(shortest=int(targets.min()))
        most = min(3 * int(targets.max()) // 2, self.base.config.max_position_embeddings)
        self.generation = generation_config(self.settings, self.base.beam(recipe), longest=most)

    def go(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> RewritingTuned:
        """Tune from `checkpoint` or from the base until the schedule ends."""
        torch.set_num_threads(self.recipe.training.threads or torch.get_num_threads())
        net = new_network(self.recipe, self.base, _device())
        job = self._job(net)
        result, _ = run_loop(self.run, self.recipe, job, self.session, deadline=deadline, checkpoint=checkpoint)
        summary = self._summary(result)
        if result.ended == "interrupted":
            return summary
        best = result.best_checkpoint or result.checkpoint
        job.load(best)
        return self._publish(best, net.eval(), summary)

    def _job(self, net: SequenceNet) -> Job:
        recipe, batches = self.recipe, self.pairs.batches(self.recipe, self.base)
        thaw = None
        if recipe.tuning.gradual:
            planned = self.run.header["plan"]["epochs"]  # as planned: a deadline may move the end later
            thaw = gradual_unfreezing(net, steps_per_epoch=len(batches), epochs=planned)
        return Job(
            net,
            SequenceToSequence(recipe.training.label_smoothing),
            batches,
            optimizer_of(net, recipe),
            loop_settings(recipe),
            save=lambda folder: self._save(net, folder),
            load=lambda folder: self._load(net, folder),
            validate=lambda: self._validate(net),
            thaw=thaw,
        )

    def _validate(self, net: SequenceNet) -> Validation:
        """Cross-entropy of the validation targets, which chooses the weights."""
        held_out = self.pairs.held_out(self.recipe, self.base)
        found = mean_loss(
            net,
            SequenceToSequence(),
            held_out,
            samples=len(held_out),
            batch_size=1,
            world=alone(_device()),
            precision=self.recipe.training.precision or "fp32",
        )
        return Validation(found["loss"], {"loss": found["loss"]})

    def _save(self, net: SequenceNet, folder: Path) -> None:
        """Fill a checkpoint's folder: the whole network, or the adapter and the record of its base."""
        if self.recipe.tuning.kind == "lora":
            parent = self.run.header["parent"]
            save_tuned(net, folder, method=self.recipe.tuning, base=parent, task_type="SEQ_2_SEQ_LM")
            copy_files(self.base.folder, folder, CONFIGURATION)
            write_json(folder / GENERATION_CONFIG, dict(self.generation))
        else:
            save_encoder_decoder(net, folder, generation=self.generation)
        copy_files(self.base.folder, folder, TOKENIZER)

    def _load(self, net: SequenceNet, folder: Path) -> None:
        """Give the network the weights of a checkpoint."""
        if self.recipe.tuning.kind == "lora":
            load_adapter(net, folder)
        else:
            net.load_state_dict(load_encoder_decoder(folder).state_dict())

    def _publish(self, folder: Path, net: SequenceNet, summary: RewritingTuned) -> RewritingTuned:
        """Measure base and tuned network on the same test pairs, and make the run folder the tuned model."""
        before = self._measured(self.base.network(dropout=0.0).to(_device()), "writing the test set with the base")
        after = self._measured(net, "writing the test set")
        shown = list(zip(after.pairs.sources, after.pairs.targets, after.written, strict=True))[:_EXAMPLES]
        summary = replace(
            summary,
            records=tuple(compared(before, after)),
            examples=tuple(Example(*texts) for texts in shown),
            seconds=self.session.seconds,
        )
        recipe = RewriteTuningRecipe.parse(self.run.header["recipe"])
        text = card(self.run, recipe, summary, self.pairs.remarks)
        self.run.publish(folder, card=text, records=summary.records, scores=after.scores)
        return summary

    def _measured(self, net: SequenceNet, label: str) -> Measured:
        """Both networks write for the same pairs: the first that fit, and pairs stand in the order of their ids."""
        rewriter = self.base.rewriter(net, self.recipe, self.settings)
        test = fitting(rewriter, self.pairs.split.test)
        test = test.take(np.arange(min(len(test), self.recipe.training.measured or len(test))))
        return measure(rewriter, test, self.session.progress, label=label)

    def _summary(self, result: LoopResult) -> RewritingTuned:
        plan = self.run.header["plan"]
        return RewritingTuned(
            run=self.run.folder,
            ended=result.ended,
            steps=result.step,
            epochs=result.step / len(self.pairs.batches(self.recipe, self.base)),
            parameters=plan["parameters"],
            trained=plan["trained_parameters"],
            seconds=self.session.seconds,
            tokens_per_second=result.targets / result.seconds if result.seconds else 0.0,
            plan=plan,
            skipped=result.skipped,
        )
