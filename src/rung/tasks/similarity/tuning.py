"""A base and rows of texts that belong together in, a sentence encoder out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rung.data.related_texts import RelatedTexts, read_related, split_related
from rung.nets.adapters import load_adapter
from rung.nets.lora import merge_lora, unmerge_lora
from rung.nets.sentence_folder import load_pooler, load_sentence_net, save_sentence_net
from rung.runfolder import write_folder
from rung.tasks.bases import resolve_base
from rung.tasks.classification.network_training import device, optimizer_of, training_of
from rung.tasks.run import Run
from rung.tasks.similarity.encoder import load_sentence_encoder
from rung.tasks.similarity.measuring import BEFORE, measure
from rung.tasks.similarity.tuning_plan import (
    SimilarityPlan,
    batches_of,
    encoded,
    loop_settings,
    make_plan,
    objective_of,
)
from rung.tasks.similarity.tuning_recipe import SimilarityRecipe
from rung.tasks.similarity.tuning_summary import SimilarityTuned
from rung.tasks.tuning.folder import save_tuned
from rung.tasks.tuning.frame import Job, Session
from rung.tasks.tuning.method import apply_method, rate_of
from rung.tasks.tuning.tuner import Outcome, Tuner, Tuning
from rung.training.checkpoint import CHECKPOINTS
from rung.training.contracts import Validation


class SimilarityTuning(Tuning[SimilarityRecipe, SimilarityTuned]):
    """Tunes an encoder to tables of pairs with a score, of pairs that belong together, or of triplets (anchor,
    positive, negative). No text is in two parts. What LoRA has learned is merged into the base in the end.
    """

    summary = SimilarityTuned

    def __init__(self, recipe: SimilarityRecipe, session: Session) -> None:
        """Open the base, then read the rows."""
        super().__init__(recipe, session)
        self.model = load_sentence_encoder(recipe.base)
        if self.model.note:
            session.progress.say(self.model.note)
        named = recipe.rows

        def read(files: tuple[str, ...]) -> RelatedTexts:
            return read_related(files, text=named.text, score=named.score, progress=session.progress)

        valid, test = (read(files) if files else None for files in (named.valid, named.test))
        self.split = split_related(read(named.files), valid=valid, test=test, seed=recipe.seed)
        apply_method(self.model.net, recipe.tuning, seed=recipe.seed)

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        split = self.split
        parts = {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)}
        return {"sha256": split.sha256, "kind": split.train.kind, "remarks": list(split.remarks), **parts}

    def plan(self, seconds: float | None) -> SimilarityPlan:
        """Fill the gaps of the recipe."""
        return make_plan(self.recipe, self.model, self.split, seconds=seconds)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which the rows are read once."""
        rows = len(self.split.train)
        return rows / training_of(self.recipe.training, self.recipe.learning_rate).batch_of(rows)

    def job(self, run: Run) -> Job:
        """The encoder, its rows, and how both are trained."""
        recipe, model, train = self.recipe, self.model, self.split.train
        net = model.net.to(device())
        training = training_of(recipe.training, recipe.learning_rate)
        columns = encoded(model, train, recipe.training.max_length or model.max_length)

        def save(folder: Path) -> None:
            if recipe.tuning.lora is None:
                self._save_whole(folder)
            else:
                save_tuned(net, folder, method=recipe.tuning, base=run.header["parent"], task_type=None)

        return Job(
            net=net,
            objective=objective_of(recipe, train),
            batches=batches_of(recipe, model, train, columns),
            optimizer=optimizer_of(net, training, rate_of=rate_of(net, recipe.tuning)),
            settings=loop_settings(recipe, len(train)),
            unit="rows",
            save=save,
            load=self._load,
            validate=self._validate,
        )

    def _validate(self) -> Validation:
        """What is measured on test rows, on validation rows: the weights that do best are kept."""
        found = measure(self.model, self.split.valid).headline
        return Validation(1 - found, {"spearman" if self.split.valid.scores is not None else "recall_at_1": found})

    def _save_whole(self, folder: Path) -> None:
        pooler = load_pooler(resolve_base(self.recipe.base))
        save_sentence_net(self.model.net, folder, pooler=pooler)
        self.model.encoder.save(folder, model_max_length=self.model.max_length)

    def _load(self, folder: Path) -> None:
        """Give the network the weights of a checkpoint."""
        if self.recipe.tuning.lora is None:
            self.model.net.load_state_dict(load_sentence_net(folder).state_dict())
        else:
            load_adapter(self.model.net, folder)

    def publishable(self, run: Run, weights: Path) -> Path:  # noqa: ARG002 - the network has them
        """A whole encoder."""
        folder = run.folder / CHECKPOINTS / "published"
        merged = merge_lora(self.model.net)
        write_folder(folder, self._save_whole, {"kind": "checkpoint", "task": TUNER.kind})
        unmerge_lora(self.model.net, merged)
        return folder

    def measure(self, weights: Path) -> Outcome:
        """Measure the base, and the folder `weights` as it will be opened."""
        before, after = (
            measure(load_sentence_encoder(place), self.split.test, progress=self.session.progress)
            for place in (self.recipe.base, weights)
        )
        first = before.records()[0]
        untuned = first.model_copy(update={"name": f"{first.name} {BEFORE}"})
        records = [*after.records(), untuned, after.gain(before)]
        scores = {"test": after.scores(), "test-before": before.scores()}
        told = {"remarks": self.split.remarks, "has_merged": self.recipe.tuning.lora is not None}
        return Outcome(records, scores, told)


TUNER = Tuner(
    recipe=SimilarityRecipe,
    open=SimilarityTuning,
    kind="similarity",
    items="rows",
    example="rung tune minilm pairs.csv --task similarity",
    budget={"training.epochs": 4.0},  # over STSb, as in Reimers and Gurevych 2019, section 4
    places={
        "data": "rows.files",
        "valid": "rows.valid",
        "test": "rows.test",
        "text": "rows.text",
        "target": "rows.score",
    },
)
