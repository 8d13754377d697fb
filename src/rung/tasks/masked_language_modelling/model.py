"""A masked language model with the verbs it supports."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rung.data.cache import cache_folder
from rung.data.corpus import prepare_corpus
from rung.data.text_encoder import TextEncoder
from rung.data.tokenise import tokenise_corpus
from rung.errors import GenerationError, RunFolderError, UsageError
from rung.evaluation.bits_per_byte import sampled_documents
from rung.evaluation.pseudo_likelihood import (
    PseudoLogLikelihood,
    evaluating,
    pseudo_bits_per_byte,
    pseudo_log_likelihoods,
)
from rung.nets.masked_language_model import MaskedLanguageModel, load_masked_language_model
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.runfolder import HEADER_NAME, read_header
from rung.tasks.masked_language_modelling.preparation import prepare
from rung.tasks.masked_language_modelling.recipe import MaskedRecipe
from rung.tasks.run import model_folder


@dataclass(frozen=True)
class Candidate:
    """A token that may stand at a mask, as the vocabulary spells it (`##ing`, `\u0120Paris`) and as it reads.

    `text` holds the space that the token brings, as in " Paris"; `joined`: it takes a space before it away, as `##ing`.
    """

    token: str
    text: str
    joined: bool
    probability: float


@dataclass(frozen=True)
class Filling:
    """What may stand at each mask of a text, the likeliest first, and the text with the likeliest of all put in.

    Each mask is guessed by itself, given the rest of the text with the other masks still in it.
    """

    text: str
    masks: list[list[Candidate]]
    filled: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "text": self.text,
            "filled": self.filled,
            "masks": [[dataclasses.asdict(one) for one in mask] for mask in self.masks],
        }


@dataclass(frozen=True)
class MaskedEvaluation:
    """Pseudo-bits per byte of a model on a text; `scores` by document."""

    run: Path
    record: Record
    scores: ItemScores

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`; without the per-document scores."""
        return {"run": str(self.run), "pseudo_bits_per_byte": self.record.model_dump(mode="json")}


class MaskedModel:
    """A masked language model and its tokenizer, from a run folder, a checkpoint or a Hugging Face folder.

    `model.fill("Paris is the [MASK] of France")` returns what may stand there; `model.pseudo_log_likelihood(texts)`
    scores texts, each token hidden in turn; `model.evaluate(files)` measures pseudo-bits per byte with an interval.
    """

    def __init__(self, folder: Path, net: MaskedLanguageModel, encoder: TextEncoder) -> None:
        """Use `rung.load(folder)`. Raises RunFolderError when tokenizer and network do not belong together."""
        if encoder.vocab_size > net.config.vocab_size:
            raise RunFolderError(
                f"the tokenizer has {encoder.vocab_size:,} tokens, the network {net.config.vocab_size:,} embeddings",
                where=str(folder),
                hint="use the tokenizer that belongs to this model",
            )
        mask = encoder.token_id("mask_token")
        opening = encoder.token_id("cls_token")
        if mask is None or opening is None:
            raise RunFolderError("the tokenizer has no mask_token or no cls_token", where=str(folder))
        self.folder, self.net, self.encoder = folder, net.eval(), encoder
        self._mask_id, self._opening_id = mask, opening
        self._mask_strips_left = encoder.strips_left(mask)

    @property
    def mask_token(self) -> str:
        """What marks a gap in a text, usually `[MASK]`."""
        return self.encoder.token(self._mask_id)

    def fill(self, text: str, k: int = 5) -> Filling:
        """Return the `k` likeliest tokens for each mask in `text`.

        Raises GenerationError when there is no mask, `k` is no number of tokens, or the text is longer than the
        network reads.
        """
        parts = text.split(self.mask_token)
        if len(parts) == 1:
            raise GenerationError(
                f"there is no {self.mask_token} in the text",
                where=text[:80],
                hint=f"put {self.mask_token} where a word is to be guessed",
            )
        if not 1 <= k <= self.encoder.vocab_size:
            raise GenerationError(f"{k} candidates were asked for", hint=f"ask for 1 to {self.encoder.vocab_size:,}")
        ids = self._with_masks(parts)
        places = [place for place, number in enumerate(ids) if number == self._mask_id]
        with evaluating(self.net) as device:
            row = torch.tensor([ids], device=device)
            scores = self.net.scores(self.net.transformed(row, where=row == self._mask_id)).float().cpu()
        best = scores.softmax(1)[:, : self.encoder.vocab_size].topk(k, dim=1)
        masks = [
            [
                Candidate(self.encoder.token(number), *self.encoder.readable(number), probability)
                for number, probability in zip(numbers, probabilities, strict=True)
            ]
            for numbers, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        assert len(places) == len(masks) == len(parts) - 1  # noqa: S101 - text cannot smuggle masks in
        return Filling(text, masks, self._put_in(parts, [mask[0] for mask in masks]))

    def pseudo_log_likelihood(
        self, texts: str | Sequence[str], *, progress: Progress = SILENT
    ) -> list[PseudoLogLikelihood]:
        """Score each text: the logarithmic probability of each of its tokens when it alone is hidden, and their sum.

        See `rung.evaluation.pseudo_likelihood`.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        return pseudo_log_likelihoods(self.net, self.encoder, given, progress=progress)

    def evaluate(self, texts: Sequence[str | Path] = (), **options: Any) -> MaskedEvaluation:
        """Pseudo-bits per byte on files of text; see `evaluate` beside this class."""
        return evaluate(self.folder, texts, **options)

    def _with_masks(self, parts: list[str]) -> list[int]:
        """Ids of the text that `parts` are with masks between them, brackets around it."""
        if self._mask_strips_left:
            parts = [*(part.rstrip() for part in parts[:-1]), parts[-1]]
        ids, lengths = self.encoder.encode_ragged(parts)
        found = [self._opening_id]
        for number, (end, length) in enumerate(zip(lengths.cumsum().tolist(), lengths.tolist(), strict=True)):
            found += [self._mask_id] * bool(number)
            found += ids[end - length : end].tolist()
        found.append(self.encoder.eos_token_id)
        longest = self.net.config.max_length
        if len(found) > longest:
            raise GenerationError(
                f"the text has {len(found):,} tokens, and this network reads {longest:,}",
                where=self.mask_token.join(parts)[:80],
                hint="give the sentences around the gap only",
            )
        return found

    def _put_in(self, parts: list[str], tokens: list[Candidate]) -> str:
        """The text with a token between each two parts, as the network has read it and would go on."""
        filled = parts[0]
        for token, part in zip(tokens, parts[1:], strict=True):
            if token.joined or self._mask_strips_left:
                filled = filled.rstrip()
            filled += (token.text if filled else token.text.lstrip()) + part
        return filled


def load(folder: str | Path) -> MaskedModel:
    """Open a masked language model: a run folder, a checkpoint, or a Hugging Face folder of a `BertForMaskedLM`, a
    `RobertaForMaskedLM` or a `DistilBertForMaskedLM`.

    A run that is not finished gives its newest checkpoint. Raises RunFolderError or TokenizerError when there is no
    model or it is damaged.
    """
    path = model_folder(folder)
    return MaskedModel(path, load_masked_language_model(path), TextEncoder.load(path))


def evaluate(
    run: str | Path,
    texts: Sequence[str | Path] = (),
    *,
    max_bytes: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> MaskedEvaluation:
    """Measure a model's pseudo-bits per byte on `texts`, or on the validation text its run held out.

    Each token costs a pass over its window, so long texts take long; `max_bytes` takes an evenly spread sample of the
    documents. Raises UsageError when there is no text to measure on, DataError when none can be read, RunFolderError.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    model = load(run)
    if texts:
        corpus = prepare_corpus([], cache_dir=cache_folder(), valid_paths=[Path(t) for t in texts], progress=progress)
        shards = tokenise_corpus(corpus, model.encoder, cache_dir=cache_folder(), progress=progress)["valid"]
    else:
        shards = prepare(_recipe_of(Path(run)), progress, encoder=model.encoder).valid
    documents = sampled_documents(shards.document_bytes, max_bytes)
    record, scores = pseudo_bits_per_byte(model.net, model.encoder, shards, documents=documents, progress=progress)
    return MaskedEvaluation(Path(run), record, scores)


def _recipe_of(run: Path) -> MaskedRecipe:
    header = read_header(run) if (run / HEADER_NAME).exists() else {}
    if "recipe" not in header:
        raise UsageError(
            "this folder does not say what text was held out in its training", where=str(run), hint="name a TEXT"
        )
    return MaskedRecipe.parse(header["recipe"], where=str(run / HEADER_NAME))
