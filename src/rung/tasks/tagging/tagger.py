"""A tuned tagger with the verbs it supports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rung.data.tag_batches import TagBatches, word_tokens
from rung.data.tagged_sentences import TaggedSentences
from rung.data.text_encoder import TextEncoder
from rung.errors import EvaluationError
from rung.evaluation.entities import entities, entity_records, entity_scores, has_spans, tag_records
from rung.nets.tagger import Tagger as TaggerNet
from rung.nets.tagger import tag_names
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.tasks.run import model_folder
from rung.tasks.tagging.folder import open_tagger

_MOST_TOKENS = 512
_TAGGED_AT_ONCE = 64
# Words as taggers are given them: runs of letters and digits, single marks; an apostrophe opens a clitic ('s, 'm).
_WORD = re.compile(r"['’]\w+|[@#]?\w+(?:[-.]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Tagged:
    """A text cut into words, and the tag of each; `spans`: (start, stop) of each word in characters of the text."""

    text: str
    words: list[str]
    spans: list[tuple[int, int]]
    tags: list[str]

    @property
    def entities(self) -> list[dict[str, Any]]:
        """The entities in the text: type, text, and where it begins and stops, in characters."""
        found = []
        for one in entities(self.tags):
            start, stop = self.spans[one.start][0], self.spans[one.stop - 1][1]
            found.append({"type": one.type, "text": self.text[start:stop], "start": start, "stop": stop})
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {"text": self.text, "words": self.words, "tags": self.tags, "entities": self.entities}


class Tagger:
    """A tagger and its tokenizer. `tagger.tag("Ada lives in London")` finds the entities of a text.

    `predict` tags sentences that are words already, `evaluate` measures against tagged ones.
    """

    def __init__(self, folder: Path, net: TaggerNet, tags: Sequence[str], encoder: TextEncoder) -> None:
        """Use `rung.load(folder)`."""
        self.folder, self.net, self.tags, self.encoder = folder, net.eval(), tuple(tags), encoder
        self.max_length = min(net.config.max_length, encoder.model_max_length or _MOST_TOKENS, _MOST_TOKENS)

    def tag(self, texts: str | Sequence[str]) -> list[Tagged]:
        """Cut each text into words and tag them."""
        given = [texts] if isinstance(texts, str) else list(texts)
        matches = [list(_WORD.finditer(text)) for text in given]
        words = [[match.group() for match in found] for found in matches]
        tags = self.predict(words)
        return [
            Tagged(text, cut, [match.span() for match in found], one)
            for text, cut, found, one in zip(given, words, matches, tags, strict=True)
        ]

    @torch.inference_mode()
    def predict(self, sentences: Sequence[Sequence[str]], *, progress: Progress = SILENT) -> list[list[str]]:
        """A tag for each word of each sentence; sentences longer than the network reads are tagged in pieces."""
        words = word_tokens(sentences, self.encoder, max_length=self.max_length)
        numbers = np.cumsum(words.first) - 1  # of the word that begins at each token
        batches = TagBatches(words, words.labels(numbers[words.first]), pad_token_id=self.encoder.pad_token_id)
        device = next(self.net.parameters()).device
        found = np.empty(int(words.first.sum()), dtype=np.int64)
        pieces = len(words.pieces)
        with progress.task("tagging", pieces, "sentences") as advance:
            for start in range(0, pieces, _TAGGED_AT_ONCE):
                batch = batches.batch(np.arange(start, min(start + _TAGGED_AT_ONCE, pieces), dtype=np.int64))
                best = self.net({name: tensor.to(device) for name, tensor in batch.items()}).argmax(2).cpu()
                places = batch["labels"] >= 0
                found[batch["labels"][places].numpy()] = best[places].numpy()
                advance(len(batch["labels"]))
        names = iter(found.tolist())
        return [[self.tags[next(names)] for _ in sentence] for sentence in sentences]

    def evaluate(
        self, sentences: TaggedSentences, *, progress: Progress = SILENT
    ) -> tuple[list[Record], dict[str, ItemScores]]:
        """Records, and the share of right tags of each sentence. EvaluationError for tags that it never learned."""
        if unknown := sorted(set(sentences.tag_names) - set(self.tags)):
            raise EvaluationError(
                f"the sentences have tags that this model does not know: {', '.join(unknown[:5])}",
                where=str(self.folder),
                hint=f"it knows {', '.join(self.tags[:10])}",
            )
        found = self.predict(sentences.words, progress=progress)
        measure = entity_records if has_spans(self.tags) else tag_records
        records = measure(sentences.ids, found, sentences.tags, data_sha256=sentences.sha256)
        right = np.array([sum(map(str.__eq__, *pair)) for pair in zip(found, sentences.tags, strict=True)], np.float64)
        lengths = np.array(list(map(len, sentences.tags)), np.float64)
        return records, {"tags": ItemScores(sentences.ids, right, lengths)}


def span_f1_of(tags: Sequence[Sequence[str]], expected: TaggedSentences) -> float:
    """Entity F1 of predicted `tags`; 0 where neither has an entity."""
    value = entity_scores(expected.ids, tags, expected.tags).value
    return 0.0 if np.isnan(value) else value


def load(folder: str | Path) -> Tagger:
    """Open a tagger: a run folder, a checkpoint, or a Hugging Face folder of a known ...ForTokenClassification.

    Raises RunFolderError or TokenizerError when there is no model or it is damaged.
    """
    path = model_folder(folder)
    return Tagger(path, open_tagger(path), tag_names(path), TextEncoder.load(path))
