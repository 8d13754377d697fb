"""One text-to-text run from its resolved recipe to a finished folder: the same path for new and resumed runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file

from rung.data.pair_batches import EncodedPairs, HeldOutPairs
from rung.data.pairs import Pairs
from rung.nets.encoder_decoder_folder import load_encoder_decoder, save_encoder_decoder
from rung.objectives.sequence_to_sequence import SequenceToSequence
from rung.progress import SILENT, Progress
from rung.runfolder import write_folder
from rung.tasks.rewriting.card import model_card
from rung.tasks.rewriting.measuring import measure, quick_bleu
from rung.tasks.rewriting.plan import Net, network_config, new_network, pretraining_batches, training_batches
from rung.tasks.rewriting.preparation import PreparedPairs
from rung.tasks.rewriting.pretraining_text import GappedText, watched_windows
from rung.tasks.rewriting.recipe import RewritingRecipe
from rung.tasks.rewriting.rewriter import Rewriter
from rung.tasks.rewriting.summary import Example, RewritingSummary
from rung.tasks.run import Run
from rung.training import loop
from rung.training.checkpoint import CHECKPOINTS, Checkpoint, TrainerState, checkpoints, latest_good
from rung.training.contracts import Batches, LoopResult, LoopSettings, Validation
from rung.training.distributed import alone
from rung.training.meter import Display
from rung.training.optimizers import build_optimizer
from rung.training.schedule import Schedule
from rung.training.validation import mean_loss

_WATCHED = 64  # validation pairs whose greedy BLEU is shown while training
JUDGED = 500  # validation pairs by which weights are chosen at the end
_EXAMPLES = 3
PRETRAINING = "pretraining"
"""The folder in a run for the checkpoints and the log of what comes before the pairs."""
_KEPT_OF_PRETRAINING = 2  # checkpoints: the last, and one more should that be damaged


@dataclass(frozen=True)
class Session:
    """Who watches a command, where it computes, and when it began (a reading of `time.monotonic()`)."""

    progress: Progress
    display: Display
    device: torch.device
    began: float


@dataclass(frozen=True)
class _Phase:
    """What the training loop is called for: `folder` gets its checkpoints; `name` is that of its schedule."""

    name: Literal["schedule", "pretraining_schedule"]
    folder: Path
    batches: Batches
    label_smoothing: float
    kept: int
    validation: Callable[[Net], Callable[[], Validation]]


class PairTraining:
    """Trains `run` by its recipe, measures it on test pairs, and makes its folder a model.

    Where there is raw text, the network is first trained to restore hidden spans of it, with a loop of its own in
    `RUN/pretraining`; on the pairs its last weights go on, with a new optimiser and schedule.
    """

    def __init__(self, run: Run, recipe: RewritingRecipe, pairs: PreparedPairs, session: Session) -> None:
        """Take a run whose recipe has no gaps, and its pairs."""
        self.run, self.recipe, self.pairs, self.session = run, recipe, pairs, session
        self.config = network_config(recipe, pairs)
        self.batches = training_batches(pairs, tokens=recipe.training.tokens_per_batch or 1, seed=recipe.seed)

    def train(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> RewritingSummary:
        """Train from `checkpoint` or from the beginning until the schedule ends; see `rung.training.loop.train`."""
        torch.set_num_threads(self.recipe.training.threads or torch.get_num_threads())
        self.run.write("training")
        weights = None
        if self.pairs.text is not None and checkpoint is None:
            before = self._pretrain(self.pairs.text, deadline)
            if before.interrupt_wanted:
                self.run.write("interrupted")
                return self._summary(replace(before, ended="interrupted"), steps=0)
            weights = before.checkpoint
        phase = _Phase(
            "schedule",
            self.run.folder,
            self.batches,
            self.recipe.training.label_smoothing,
            self.recipe.training.averaged,
            self._validation,
        )
        result = self._loop(phase, deadline, checkpoint, weights)
        if result.ended == "interrupted":
            self.run.write("interrupted")
            return self._summary(result)
        self._store_schedule(phase, result.schedule)
        return self._publish(result)

    def _pretrain(self, text: GappedText, deadline: float | None) -> LoopResult:
        """Learn to restore hidden spans of raw text (Raffel et al. 2020, section 3.1.4), for a share of the time.

        It goes on from its own newest checkpoint; after the last step there is nothing left to do.
        """
        training, progress = self.recipe.training, self.session.progress
        folder = self.run.folder / PRETRAINING
        checkpoint = latest_good(folder, progress.say)
        now = time.monotonic()
        if deadline is not None:
            deadline = now + training.pretraining_share * (deadline - now)
        batches = pretraining_batches(self.pairs, text, tokens=training.tokens_per_batch or 1, seed=self.recipe.seed)
        progress.say("first phase: restoring hidden spans of raw text")
        phase = _Phase(
            "pretraining_schedule",
            folder,
            batches,
            0.0,
            _KEPT_OF_PRETRAINING,
            lambda net: self._mean_loss(net, text.valid.pairs(watched_windows(text), 0)),
        )
        result = self._loop(phase, deadline, checkpoint, None)
        self._store_schedule(phase, result.schedule)
        self.run.header["pretraining"] = {"steps": result.step, "epochs": round(result.step / len(batches), 3)}
        if not result.interrupt_wanted:
            self.run.write("training")
            progress.say("second phase: the pairs")
        return result

    def _network(self, folder: Path | None) -> Net:
        """The network to train, from a checkpoint or drawn from the seed."""
        dropout = self.recipe.net.dropout or 0.0
        if folder is None:
            net = new_network(self.config, dropout=dropout, seed=self.recipe.seed)
        else:
            net = load_encoder_decoder(folder, dropout=dropout)
        return net.to(self.session.device)

    def _loop(
        self, phase: _Phase, deadline: float | None, checkpoint: Checkpoint | None, weights: Path | None
    ) -> LoopResult:
        """Go on from `checkpoint`, or begin with the weights in the folder `weights`, or with new ones."""
        training, device = self.recipe.training, self.session.device
        net = self._network(checkpoint.folder if checkpoint else None)
        if weights is not None:
            _copy_weights(net, [weights])
        return loop.train(
            net,
            SequenceToSequence(phase.label_smoothing),
            phase.batches,
            build_optimizer(
                net,
                name=training.optimizer,
                learning_rate=training.learning_rate or 0.0,
                weight_decay=training.weight_decay,
                betas=(0.9, 0.98),  # Vaswani et al. 2017, section 5.3
            ),
            self._settings(phase),
            run_folder=phase.folder,
            save_model=lambda folder: self._save(net, folder),
            header={key: self.run.header[key] for key in ("rung_version", "task", "data")} | {"kind": "checkpoint"},
            validate=phase.validation(net),
            world=alone(device),
            display=self.session.display,
            deadline=deadline,
            resume=checkpoint,
            on_revision=lambda state: self._on_revision(phase, state),
            resumed_as=self.run.folder,
        )

    def _settings(self, phase: _Phase) -> LoopSettings:
        training = self.recipe.training
        return LoopSettings(
            schedule=Schedule.from_json(getattr(training, phase.name) or {}),
            batch_size=1,  # a sample is a batch of pairs
            micro_batch_size=1,
            seed=self.recipe.seed,
            gradient_clip=training.gradient_clip,
            precision=training.precision or "fp32",
            validate_every=training.validate_every,
            checkpoint_every=training.validate_every,
            keep_last=phase.kept,
            tensorboard=training.tensorboard,
            vital_signs_every=training.vital_signs_every,
        )

    def _validation(self, net: Net) -> Callable[[], Validation]:
        """Cross-entropy of validation targets, which decides, and BLEU of a few of them, to be looked at."""
        cross_entropy = self._mean_loss(net, self.pairs.valid)
        watched = _some(self._readable(self.pairs.split.valid, self.pairs.valid), _WATCHED)

        def validate() -> Validation:
            found = cross_entropy()
            bleu = quick_bleu(self._rewriter(net), watched, SILENT)
            return Validation(found.criterion, {**found.metrics, "bleu": bleu})

        return validate

    def _mean_loss(self, net: Net, pairs: EncodedPairs) -> Callable[[], Validation]:
        """Cross-entropy of the targets of `pairs`."""
        pad, tokens = self.pairs.tokenizer.pad_token_id, self.recipe.training.tokens_per_batch or 1
        held_out = HeldOutPairs(pairs, tokens=tokens, pad_token_id=pad, start_token_id=pad)
        precision = self.recipe.training.precision or "fp32"

        def validate() -> Validation:
            found = mean_loss(
                net,
                SequenceToSequence(),
                held_out,
                samples=len(held_out),
                batch_size=1,
                world=alone(self.session.device),
                precision=precision,
            )
            return Validation(found["loss"], {"loss": found["loss"]})

        return validate

    def _readable(self, pairs: Pairs, encoded: EncodedPairs) -> Pairs:
        """Those of `pairs` that are not too long; the others are not in `encoded` either."""
        if len(pairs) == len(encoded):
            return pairs
        lengths = self.pairs.tokenizer.encode(pairs.sources).lengths
        return pairs.take(np.flatnonzero(lengths <= self.pairs.longest))

    def _save(self, net: Net, folder: Path) -> None:
        save_encoder_decoder(net, folder, never=self.pairs.tokenizer.sentinels)
        self.pairs.tokenizer.save(folder, model_max_length=self.pairs.longest)

    def _rewriter(self, net: Net) -> Rewriter:
        return Rewriter(self.run.folder, net, self.pairs.tokenizer, self.recipe.beam)

    def _on_revision(self, phase: _Phase, state: TrainerState) -> None:
        """Keep the stored recipe true: with its schedule, the same run can be had again without a clock."""
        self._store_schedule(phase, state.schedule)
        self.run.write("training")

    def _store_schedule(self, phase: _Phase, schedule: Schedule) -> None:
        self.recipe = self.recipe.with_overrides({f"training.{phase.name}": schedule.to_json()})
        training = self.recipe.training
        stored = [one for one in (training.schedule, training.pretraining_schedule) if one is not None]
        steps = sum(Schedule.from_json(one).steps for one in stored)
        self.recipe = self.recipe.with_overrides({"training.steps": steps})
        self.run.header["recipe"] = self.recipe.to_json()

    def _publish(self, result: LoopResult) -> RewritingSummary:
        """Choose weights on validation pairs, measure them on test pairs, and make the run folder that model."""
        folder, weights = self._best_weights(result)
        rewriter = self._rewriter(self._network(folder))
        measured = measure(rewriter, self.pairs.split.test, self.session.progress, label="writing the test set")
        shown = zip(measured.pairs.sources, measured.pairs.targets, measured.written, strict=True)
        examples = tuple(Example(*texts) for texts in list(shown)[:_EXAMPLES])
        summary = self._summary(result, weights=weights)
        summary = RewritingSummary(**{**vars(summary), "records": tuple(measured.records), "examples": examples})
        card = model_card(self.run, self.recipe, self.pairs, summary)
        self.run.publish(folder, card=card, records=measured.records, scores=measured.scores)
        return summary

    def _best_weights(self, result: LoopResult) -> tuple[Path, str]:
        """The last weights, the best validated ones, or the mean of the last checkpoints: by BLEU on validation pairs.

        Averaging the last checkpoints is usual for translation (Vaswani et al. 2017, section 6.1); whether it helps
        is measured here rather than taken on trust.
        """
        found = checkpoints(self.run.folder)
        candidates = {f"weights of step {result.step:,}": result.checkpoint}
        if result.best_checkpoint is not None and result.best_step != result.step:
            candidates[f"weights of step {result.best_step:,}"] = result.best_checkpoint
        last = [path for step, path in found.items() if step > result.schedule.decay_start]
        last = last[-self.recipe.training.averaged :]
        if len(last) > 1:
            candidates[f"mean of the last {len(last)} checkpoints"] = self._averaged(last)
        if len(candidates) == 1:
            return result.checkpoint, next(iter(candidates))
        judged = _some(self._readable(self.pairs.split.valid, self.pairs.valid), JUDGED)
        scores = {}
        for name, folder in candidates.items():
            scores[name] = quick_bleu(self._rewriter(self._network(folder)), judged, self.session.progress)
            self.session.progress.say(f"{name}: validation BLEU {scores[name]:.2f}")
        best = max(scores, key=scores.__getitem__)
        return candidates[best], best

    def _averaged(self, folders: list[Path]) -> Path:
        """A checkpoint folder of its own with the mean of the weights in `folders`."""
        net = self._network(folders[-1])
        _copy_weights(net, folders)
        final = self.run.folder / CHECKPOINTS / "average"
        write_folder(final, lambda folder: self._save(net, folder), {"kind": "checkpoint", "task": "rewriting"})
        return final

    def _summary(self, result: LoopResult, *, steps: int | None = None, weights: str = "") -> RewritingSummary:
        """`steps` are those on pairs, where `result` is of another phase."""
        steps = result.step if steps is None else steps
        pretraining = self.run.header.get("pretraining", {})
        if self.pairs.text is not None:
            pretraining = {**pretraining, **self.pairs.text.describe()}
        return RewritingSummary(
            run=self.run.folder,
            ended=result.ended,
            steps=steps,
            epochs=steps / len(self.batches),
            parameters=self.run.header["plan"]["parameters"],
            seconds=time.monotonic() - self.session.began,
            tokens_per_second=result.targets / result.seconds if result.seconds else 0.0,
            weights=weights,
            records=(),
            examples=(),
            plan=self.run.header["plan"],
            skipped=result.skipped,
            pretraining=pretraining,
        )


def _copy_weights(net: Net, folders: list[Path]) -> None:
    """Give `net` the mean of the weights in `folders`, in memory of its own."""
    stored = [load_file(folder / "model.safetensors") for folder in folders]
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(torch.stack([tensors[name] for tensors in stored]).mean(0))


def _some(pairs: Pairs, count: int) -> Pairs:
    """The first `count` pairs: pairs stand in the order of their ids, which are as good as drawn."""
    return pairs.take(np.arange(min(count, len(pairs))))
