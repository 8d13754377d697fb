"""Someone's encoder-decoder and pairs of texts in, the same network tuned to them out."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rung.evaluation.translation import require_sacrebleu
from rung.nets.adapters import load_adapter
from rung.nets.encoder_decoder_folder import SequenceNet, load_encoder_decoder, save_encoder_decoder
from rung.nets.pretrained import GENERATION_CONFIG
from rung.objectives.sequence_to_sequence import SequenceToSequence
from rung.runfolder import write_json
from rung.tasks.classification.network_training import device
from rung.tasks.rewriting.measuring import Measured, fitting, measure
from rung.tasks.rewriting.preparation import read_split
from rung.tasks.rewriting.summary import Example
from rung.tasks.rewriting.tuning_base import TuningBase, generation_config
from rung.tasks.rewriting.tuning_plan import RewriteTuningPlan, TuningPairs, make_plan, new_network
from rung.tasks.rewriting.tuning_recipe import RewriteTuningRecipe
from rung.tasks.rewriting.tuning_summary import RewritingTuned, compared
from rung.tasks.run import Run
from rung.tasks.tuning.folder import CONFIGURATION, TOKENIZER, copy_files, save_tuned
from rung.tasks.tuning.frame import Job, Session
from rung.tasks.tuning.stepping import loop_settings, optimizer_of
from rung.tasks.tuning.tuner import Outcome, Tuner, Tuning
from rung.training.contracts import Validation
from rung.training.distributed import alone
from rung.training.validation import mean_loss

_EXAMPLES = 3


class RewriteTuning(Tuning[RewriteTuningRecipe, RewritingTuned]):
    """Tunes an encoder-decoder to tables with a source and a target column, or to two files aligned line by line.

    BLEU, chrF and, for long targets, ROUGE are measured on the same test pairs before and after, with the interval of
    their paired difference; the validation pairs choose the weights. With LoRA the folder is an adapter.
    """

    summary = RewritingTuned

    def __init__(self, recipe: RewriteTuningRecipe, session: Session) -> None:
        """Read base and pairs; a base of another kind is refused before any pair is read."""
        super().__init__(recipe, session)
        require_sacrebleu()
        self.base = TuningBase.open(recipe.base)
        split = read_split(recipe.pairs, seed=recipe.seed, progress=session.progress)
        self.pairs = TuningPairs.encode(recipe, self.base, split)
        self.settings = self.base.tuned_settings(shortest=int(self.pairs.train.targets.lengths.min()))

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

    def plan(self, seconds: float | None) -> RewriteTuningPlan:
        """Fill the gaps of the recipe."""
        return make_plan(self.recipe, self.base, self.pairs, device(), seconds=seconds)

    @cached_property
    def net(self) -> SequenceNet:
        """The base as a recipe without gaps tunes it."""
        return new_network(self.recipe, self.base, device())

    @property
    def steps_per_epoch(self) -> float:
        """Batches in which the pairs are read once."""
        return len(self.pairs.batches(self.recipe, self.base))

    def job(self, run: Run) -> Job:
        """The network, its pairs, and how both are trained."""
        recipe, net = self.recipe, self.net
        return Job(
            net=net,
            objective=SequenceToSequence(recipe.training.label_smoothing),
            batches=self.pairs.batches(recipe, self.base),
            optimizer=optimizer_of(net, recipe),
            settings=loop_settings(recipe, precision=recipe.training.precision or "fp32"),  # a sample is a batch
            save=lambda folder: self._save(run, folder),
            load=self._load,
            validate=self._validate,
        )

    def _validate(self) -> Validation:
        """Cross-entropy of the validation targets, which chooses the weights."""
        held_out = self.pairs.held_out(self.recipe, self.base)
        found = mean_loss(
            self.net,
            SequenceToSequence(),
            held_out,
            samples=len(held_out),
            batch_size=1,
            world=alone(device()),
            precision=self.recipe.training.precision or "fp32",
        )
        return Validation(found["loss"], {"loss": found["loss"]})

    def _save(self, run: Run, folder: Path) -> None:
        """Fill a checkpoint's folder: the whole network, or the adapter and the record of its base."""
        longest = 3 * int(self.pairs.train.targets.lengths.max()) // 2
        most = min(longest, self.base.config.max_position_embeddings)
        generation = generation_config(self.settings, self.base.beam(self.recipe), longest=most)
        if self.recipe.tuning.kind == "lora":
            parent = run.header["parent"]
            save_tuned(self.net, folder, method=self.recipe.tuning, base=parent, task_type="SEQ_2_SEQ_LM")
            copy_files(self.base.folder, folder, CONFIGURATION)
            write_json(folder / GENERATION_CONFIG, dict(generation))
        else:
            save_encoder_decoder(self.net, folder, generation=generation)
        copy_files(self.base.folder, folder, TOKENIZER)

    def _load(self, folder: Path) -> None:
        """Give the network the weights of a checkpoint."""
        if self.recipe.tuning.kind == "lora":
            load_adapter(self.net, folder)
        else:
            self.net.load_state_dict(load_encoder_decoder(folder).state_dict())

    def measure(self, weights: Path) -> Outcome:  # noqa: ARG002 - the network has them
        """Measure base and tuned network on the same test pairs."""
        before = self._measured(self.base.network(dropout=0.0).to(device()), "writing the test set with the base")
        after = self._measured(self.net, "writing the test set")
        shown = list(zip(after.pairs.sources, after.pairs.targets, after.written, strict=True))[:_EXAMPLES]
        return Outcome(compared(before, after), after.scores, {"examples": tuple(Example(*texts) for texts in shown)})

    def _measured(self, net: SequenceNet, label: str) -> Measured:
        """Both networks write for the same pairs: the first that fit, and pairs stand in the order of their ids."""
        rewriter = self.base.rewriter(net, self.recipe, self.settings)
        test = fitting(rewriter, self.pairs.split.test)
        test = test.take(np.arange(min(len(test), self.recipe.training.measured or len(test))))
        return measure(rewriter, test, self.session.progress, label=label)


TUNER = Tuner(
    recipe=RewriteTuningRecipe,
    open=RewriteTuning,
    kind="rewriting",
    items="pairs",
    example="rung tune models/t5-small pairs.csv --task rewrite",
    budget={"training.epochs": 3.0},
    places={
        "data": "pairs.files",
        "valid": "pairs.valid",
        "test": "pairs.test",
        "source": "pairs.source",
        "target": "pairs.target",
        "prefix": "pairs.prefix",
    },
)
