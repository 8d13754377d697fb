"""`SentenceEncoder`: texts in, vectors out that lie close together where texts mean the same."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rung.data.label_batches import collate
from rung.data.text_encoder import TextEncoder
from rung.errors import TokenizerError, UsageError, did_you_mean
from rung.nets.sentence_encoder import SentenceNet
from rung.nets.sentence_folder import body_folder, is_sentence_folder, load_sentence_net
from rung.progress import SILENT, Progress
from rung.tasks.bases import resolve_base

Floats = NDArray[np.float32]
BATCH_SIZE = 32


class TruncationWarning(UserWarning):
    """Texts were longer than the network reads, and their ends were not looked at."""


@dataclass(frozen=True)
class Embeddings:
    """`vectors` (texts, dimension) float32, and how many texts were read only up to `max_length` tokens."""

    vectors: Floats
    truncated: int
    max_length: int


class SentenceEncoder:
    """A network that embeds texts, and its tokenizer. `note` says what its folder left open."""

    def __init__(self, net: SentenceNet, encoder: TextEncoder, *, note: str = "") -> None:
        self.net, self.encoder, self.note = net.eval(), encoder, note

    @property
    def dimension(self) -> int:
        """Numbers of an embedding."""
        return self.net.dimension

    @property
    def max_length(self) -> int:
        """The most tokens of a text that are read, special tokens included."""
        return self.net.config.max_length

    def embed(self, texts: Sequence[str], *, prompt: str | None = None, batch_size: int = BATCH_SIZE) -> Floats:
        """Return the vectors (texts, dimension), float32, of `texts` in their order.

        `prompt` names one of the model's prompts, which goes before every text (default: the model's own default).
        Warns with `TruncationWarning` when texts are longer than `max_length`. Raises UsageError for an unknown prompt.
        """
        found = self.embeddings(texts, prompt=prompt, batch_size=batch_size)
        if found.truncated:
            warnings.warn(
                f"{found.truncated:,} of {len(texts):,} texts were read up to {found.max_length} tokens only",
                TruncationWarning,
                stacklevel=2,
            )
        return found.vectors

    def embeddings(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        batch_size: int = BATCH_SIZE,
        progress: Progress = SILENT,
    ) -> Embeddings:
        """As `embed`, but the number of texts that were cut off is returned and nothing is warned of."""
        before = self._prompt(prompt)
        encoded = self.encoder.encode(
            [before + text for text in texts] if before else texts, max_length=self.max_length
        )
        by_length = np.argsort(encoded.lengths, kind="stable")
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        device = next(self.net.parameters()).device
        with torch.inference_mode(), progress.task("embedding", len(texts), "texts") as advance:
            for start in range(0, len(texts), batch_size):
                rows = by_length[start : start + batch_size]
                batch = collate(encoded, rows, self.encoder.pad_token_id)
                found = self.net({name: tensor.to(device) for name, tensor in batch.items()})
                vectors[rows] = found.float().cpu().numpy()
                advance(len(rows))
        return Embeddings(vectors, encoded.truncated, self.max_length)

    def similarity(self, first: Floats, second: Floats) -> Floats:
        """Return how alike each of `first` (n, dimension) and each of `second` (m, dimension) are: (n, m).

        Cosines, or for a model that was made so, plain products.
        """
        if self.net.config.similarity == "cosine":
            first, second = unit_length(first), unit_length(second)
        return first @ second.T

    def pair_similarity(self, first: Floats, second: Floats) -> Floats:
        """Return how alike the rows of `first` and `second`, both (n, dimension), are one by one: (n,)."""
        if self.net.config.similarity == "cosine":
            first, second = unit_length(first), unit_length(second)
        products: Floats = (first * second).sum(axis=1)
        return products

    def _prompt(self, name: str | None) -> str:
        config = self.net.config
        name = config.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in config.prompts:
            known = ", ".join(config.prompts) or "none"
            raise UsageError(
                f"this model has no prompt '{name}'{did_you_mean(name, config.prompts)}", hint=f"its prompts: {known}"
            )
        return config.prompts[name]


def unit_length(vectors: Floats) -> Floats:
    """`vectors` (n, dimension) scaled to length 1; a vector of zeros stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return scaled


def load_sentence_encoder(base: str | Path) -> SentenceEncoder:
    """Open a sentence encoder: a folder of sentence-transformers or of a bare encoder, a run, or a name as "minilm".

    RunFolderError or TokenizerError say what is missing, damaged or not supported.
    """
    folder = resolve_base(base)
    encoder = TextEncoder.load(body_folder(folder))
    net = load_sentence_net(folder, model_max_length=encoder.model_max_length)
    rows = net.body.config.vocab_size
    if encoder.vocab_size > rows:
        raise TokenizerError(
            f"the tokenizer has {encoder.vocab_size:,} tokens, the network {rows:,} embeddings",
            where=str(folder),
            hint="use the tokenizer that belongs to this model",
        )
    note = (
        "" if is_sentence_folder(folder) else "the folder does not say how states become a vector: their mean is taken"
    )
    return SentenceEncoder(net, encoder, note=note)
