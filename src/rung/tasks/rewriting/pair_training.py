"""One text-to-text run from its resolved recipe to a finished folder: the same path for new and resumed runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
from rung.tasks.rewriting.plan import Net, network_config, new_network, training_batches
from rung.tasks.rewriting.preparation import PreparedPairs
from rung.tasks.rewriting.recipe import RewritingRecipe
from rung.tasks.rewriting.rewriter import Rewriter
from rung.tasks.rewriting.summary import Example, RewritingSummary
from rung.tasks.run import Run
from rung.training import loop
from rung.training.checkpoint import CHECKPOINTS, Checkpoint, TrainerState, checkpoints
from rung.training.contracts import LoopResult, LoopSettings, Validation
from rung.training.distributed import alone
from rung.training.meter import Display
from rung.training.optimizers import build_optimizer
from rung.training.schedule import Schedule
from rung.training.validation import mean_loss

_WATCHED = 64  # validation pairs whose greedy BLEU is shown while training
JUDGED = 500  # validation pairs by which weights are chosen at the end
_EXAMPLES = 3


@dataclass(frozen=True)
class Session:
    """Who watches a command, where it computes, and when it began (a reading of `time.monotonic()`)."""

    progress: Progress
    display: Display
    device: torch.device
    began: float


class PairTraining:
    """Trains `run` by its recipe, measures it on test pairs, and makes its folder a model."""

    def __init__(self, run: Run, recipe: RewritingRecipe, pairs: PreparedPairs, session: Session) -> None:
        """Take a run whose recipe has no gaps, and its pairs."""
        self.run, self.recipe, self.pairs, self.session = run, recipe, pairs, session
        self.config = network_config(recipe, pairs)
        self.batches = training_batches(pairs, tokens=recipe.training.tokens_per_batch or 1, seed=recipe.seed)

    def train(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> RewritingSummary:
        """Train from `checkpoint` or from the beginning until the schedule ends; see `rung.training.loop.train`."""
        torch.set_num_threads(self.recipe.training.threads or torch.get_num_threads())
        self.run.write("training")
        result = self._loop(deadline, checkpoint)
        if result.ended == "interrupted":
            self.run.write("interrupted")
            return self._summary(result)
        return self._publish(result)

    def _network(self, folder: Path | None) -> Net:
        """The network to train, from a checkpoint or drawn from the seed."""
        dropout = self.recipe.net.dropout or 0.0
        if folder is None:
            net = new_network(self.config, dropout=dropout, seed=self.recipe.seed)
        else:
            net = load_encoder_decoder(folder, dropout=dropout)
        return net.to(self.session.device)

    def _loop(self, deadline: float | None, checkpoint: Checkpoint | None) -> LoopResult:
        training, device = self.recipe.training, self.session.device
        net = self._network(checkpoint.folder if checkpoint else None)
        return loop.train(
            net,
            SequenceToSequence(training.label_smoothing),
            self.batches,
            build_optimizer(
                net,
                name=training.optimizer,
                learning_rate=training.learning_rate or 0.0,
                weight_decay=training.weight_decay,
                betas=(0.9, 0.98),  # Vaswani et al. 2017, section 5.3
            ),
            self._settings(),
            run_folder=self.run.folder,
            save_model=lambda folder: self._save(net, folder),
            header={key: self.run.header[key] for key in ("rung_version", "task", "data")} | {"kind": "checkpoint"},
            validate=self._validation(net),
            world=alone(device),
            display=self.session.display,
            deadline=deadline,
            resume=checkpoint,
            on_revision=self._on_revision,
        )

    def _settings(self) -> LoopSettings:
        training = self.recipe.training
        return LoopSettings(
            schedule=Schedule.from_json(training.schedule or {}),
            batch_size=1,  # a sample is a batch of pairs
            micro_batch_size=1,
            seed=self.recipe.seed,
            gradient_clip=training.gradient_clip,
            precision=training.precision or "fp32",
            validate_every=training.validate_every,
            checkpoint_every=training.validate_every,
            keep_last=training.averaged,
            tensorboard=training.tensorboard,
            vital_signs_every=training.vital_signs_every,
        )

    def _validation(self, net: Net) -> Callable[[], Validation]:
        """Cross-entropy of validation targets, which decides, and BLEU of a few of them, to be looked at."""
        pad, tokens = self.pairs.tokenizer.pad_token_id, self.recipe.training.tokens_per_batch or 1
        held_out = HeldOutPairs(self.pairs.valid, tokens=tokens, pad_token_id=pad, start_token_id=pad)
        watched = _some(self._readable(self.pairs.split.valid, self.pairs.valid), _WATCHED)
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
            bleu = quick_bleu(self._rewriter(net), watched, SILENT)
            return Validation(found["loss"], {"loss": found["loss"], "bleu": bleu})

        return validate

    def _readable(self, pairs: Pairs, encoded: EncodedPairs) -> Pairs:
        """Those of `pairs` that are not too long; the others are not in `encoded` either."""
        if len(pairs) == len(encoded):
            return pairs
        lengths = self.pairs.tokenizer.encode(pairs.sources).lengths
        return pairs.take(np.flatnonzero(lengths <= self.pairs.longest))

    def _save(self, net: Net, folder: Path) -> None:
        save_encoder_decoder(net, folder)
        self.pairs.tokenizer.save(folder, model_max_length=self.pairs.longest)

    def _rewriter(self, net: Net) -> Rewriter:
        return Rewriter(self.run.folder, net, self.pairs.tokenizer, self.recipe.beam)

    def _on_revision(self, state: TrainerState) -> None:
        """Keep the stored recipe true: with its schedule, the same run can be had again without a clock."""
        self._store_schedule(state.schedule)
        self.run.write("training")

    def _store_schedule(self, schedule: Schedule) -> None:
        changed = {"training.steps": schedule.steps, "training.schedule": schedule.to_json()}
        self.recipe = self.recipe.with_overrides(changed)
        self.run.header["recipe"] = self.recipe.to_json()

    def _publish(self, result: LoopResult) -> RewritingSummary:
        """Choose weights on validation pairs, measure them on test pairs, and make the run folder that model."""
        folder, weights = self._best_weights(result)
        rewriter = self._rewriter(self._network(folder))
        measured = measure(rewriter, self.pairs.split.test, self.session.progress, label="writing the test set")
        self._store_schedule(result.schedule)
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
        stored = [load_file(folder / "model.safetensors") for folder in folders]
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter.copy_(torch.stack([tensors[name] for tensors in stored]).mean(0))
        final = self.run.folder / CHECKPOINTS / "average"
        write_folder(final, lambda folder: self._save(net, folder), {"kind": "checkpoint", "task": "rewriting"})
        return final

    def _summary(self, result: LoopResult, *, weights: str = "") -> RewritingSummary:
        return RewritingSummary(
            run=self.run.folder,
            ended=result.ended,
            steps=result.step,
            epochs=result.step / len(self.batches),
            parameters=self.run.header["plan"]["parameters"],
            seconds=time.monotonic() - self.session.began,
            tokens_per_second=result.targets / result.seconds if result.seconds else 0.0,
            weights=weights,
            records=(),
            examples=(),
            plan=self.run.header["plan"],
            skipped=result.skipped,
        )


def _some(pairs: Pairs, count: int) -> Pairs:
    """The first `count` pairs: pairs stand in the order of their ids, which are as good as drawn."""
    return pairs.take(np.arange(min(count, len(pairs))))
