"""An encoder's weights and tagged sentences in, a tagger out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

from rung.data.tag_batches import word_tokens
from rung.data.tagged_sentences import TaggedSentences, TaggedSplit, read_tagged, split_tagged
from rung.data.text_encoder import TextEncoder
from rung.evaluation.entities import has_spans
from rung.nets.tagger import Tagger as TaggerNet
from rung.nets.tagger import new_tagger
from rung.objectives.token_classification import TokenClassification
from rung.progress import Progress
from rung.tasks.bases import resolve_base
from rung.tasks.classification.network_training import device, optimizer_of, seeded
from rung.tasks.run import Run
from rung.tasks.tagging.folder import save_tuned_tagger, take_up
from rung.tasks.tagging.tagger import Tagger, load, span_f1_of
from rung.tasks.tagging.tuning_plan import VALIDATIONS, TagData, TagPlan, make_plan
from rung.tasks.tagging.tuning_recipe import TagRecipe
from rung.tasks.tagging.tuning_summary import TaggerTuned
from rung.tasks.tuning.frame import Job, Session
from rung.tasks.tuning.method import apply_method, rate_of
from rung.tasks.tuning.tuner import Outcome, Tuner, Tuning
from rung.training.contracts import LoopSettings, Validation

_MOST_TOKENS = 512


class TagTuning(Tuning[TagRecipe, TaggerTuned]):
    """Tunes an encoder to the tags of CoNLL files, or of tables whose columns hold lists of words and of their tags."""

    summary = TaggerTuned

    def __init__(self, recipe: TagRecipe, session: Session) -> None:
        """Open the base, then read the sentences: a base that cannot tag is told at once."""
        super().__init__(recipe, session)
        self.folder = resolve_base(recipe.base)
        encoder = TextEncoder.load(self.folder)
        longest = min(recipe.training.max_length or _MOST_TOKENS, new_tagger(self.folder, 1).config.max_length)
        split = _read(recipe, session.progress)
        for remark in split.remarks:
            session.progress.say(remark)
        train = word_tokens(split.train.words, encoder, max_length=longest)
        if train.cut:
            session.progress.say(f"{train.cut:,} training sentences have more than {longest} tokens: read in pieces")
        self.data = TagData(split, encoder, train)

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        split = self.data.split
        parts = {"train": split.train, "valid": split.valid, "test": split.test}
        return {
            "sha256": "+".join(part.sha256[:20] for part in parts.values()),
            "remarks": list(split.remarks),
            "tags": list(self.data.tags),
            **{name: len(part) for name, part in parts.items()},
        }

    def plan(self, seconds: float | None) -> TagPlan:
        """Fill the gaps of the recipe."""
        return make_plan(self.recipe, self.data, self.net, seconds=seconds)

    @cached_property
    def net(self) -> TaggerNet:
        """The base with a new head, as the method tunes it. Timing moves no weight."""
        with seeded(self.recipe.seed):
            net = new_tagger(self.folder, len(self.data.tags))
        apply_method(net, self.recipe.tuning, seed=self.recipe.seed)
        return net.to(device())

    @property
    def settings(self) -> LoopSettings:
        """What the loop is told: a checkpoint with every validation."""
        training, samples = self.data.training(self.recipe), len(self.data.train.pieces)
        settings = training.settings(samples, seed=self.recipe.seed, validated=True)
        every = math.ceil(settings.schedule.steps / (self.recipe.training.validations or VALIDATIONS))
        return replace(settings, validate_every=every, checkpoint_every=every)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which the sentences are read once."""
        return len(self.data.train.pieces) / self.settings.batch_size

    def job(self, run: Run) -> Job:
        """The network, trained on the sentences and judged by entities, or by tags where these are no spans."""
        recipe, net, data = self.recipe, self.net, self.data

        def save(folder: Path) -> None:
            save_tuned_tagger(net, folder, data.tags, method=recipe.tuning, base=run.header["parent"])
            data.encoder.save(folder, model_max_length=min(_MOST_TOKENS, net.config.max_length))

        return Job(
            net=net,
            objective=TokenClassification(),
            batches=data.batches(recipe),
            optimizer=optimizer_of(net, data.training(recipe), rate_of=rate_of(net, recipe.tuning)),
            settings=self.settings,
            unit="words",
            save=save,
            load=lambda folder: take_up(net, folder, method=recipe.tuning),
            validate=lambda: self._validate(run.folder),
        )

    def _validate(self, run: Path) -> Validation:
        expected = self.data.split.valid
        self.net.eval()
        found = Tagger(run, self.net, self.data.tags, self.data.encoder).predict(expected.words)
        self.net.train()
        pairs = zip(chain.from_iterable(found), chain.from_iterable(expected.tags), strict=True)
        metrics = {"tag_accuracy": mean(one == other for one, other in pairs)}
        if has_spans(self.data.tags):
            metrics["entity_f1"] = span_f1_of(found, expected)
        return Validation(1 - metrics.get("entity_f1", metrics["tag_accuracy"]), metrics)

    def measure(self, weights: Path) -> Outcome:
        """Measure the folder `weights` as it will be opened."""
        return Outcome(*load(weights).evaluate(self.data.split.test, progress=self.session.progress))


def _read(recipe: TagRecipe, progress: Progress) -> TaggedSplit:
    wanted = recipe.sentences

    def read(files: Sequence[str]) -> TaggedSentences:
        return read_tagged(files, words=wanted.words, tags=wanted.tags, progress=progress)

    valid, test = (read(files) if files else None for files in (wanted.valid, wanted.test))
    return split_tagged(read(wanted.files), valid=valid, test=test, seed=recipe.seed)


TUNER = Tuner(
    recipe=TagRecipe,
    open=TagTuning,
    kind="tagging",
    items="sentences",
    example="rung tune minilm train.conll --task tag",
    budget={"training.epochs": 5.0},
    places={
        "data": "sentences.files",
        "valid": "sentences.valid",
        "test": "sentences.test",
        "source": "sentences.words",
        "target": "sentences.tags",
    },
    has_head=True,
)
