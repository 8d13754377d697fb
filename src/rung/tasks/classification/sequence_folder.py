"""A pretrained network from a folder: its body and tokenizer are taken over, a new head is put on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rung.data.text_encoder import TextEncoder
from rung.errors import RunFolderError
from rung.nets.classifier_folder import load_body, read_body_config
from rung.nets.sentence_folder import body_folder, is_sentence_folder, pooling_of
from rung.progress import SILENT, Progress
from rung.runfolder import HEADER_NAME, verify
from rung.tasks.classification.families import Start
from rung.tasks.classification.network_training import seeded
from rung.tasks.encoding import load_encoder
from rung.tasks.task import Indices, Plan
from rung.tasks.tuning.method import TuningMethod, apply_method

_MOST_TOKENS = 512


@dataclass(frozen=True)
class FolderNetworks:
    """Encoders and decoders in Hugging Face's layout, sentence encoders, and Rung's language models.

    `pooling` None: the mean over tokens where the folder is of a sentence encoder that takes it, else what is usual.
    `method` says which weights a start leaves trainable.
    """

    folder: Path
    dropout: float = 0.1
    earlier_share: float = 0.0
    pooling: Literal["cls", "mean"] | None = None
    method: TuningMethod = field(default_factory=TuningMethod)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        dropout: float = 0.1,
        pooling: Literal["cls", "mean"] | None = None,
        method: TuningMethod | None = None,
    ) -> FolderNetworks:
        """Check early that the folder can be used. RunFolderError or TokenizerError say why it cannot."""
        if not folder.is_dir():
            raise RunFolderError("there is no such folder", where=str(folder), hint="give the folder of a network")
        if (folder / HEADER_NAME).exists():
            verify(folder)
        family = cls(folder, dropout=dropout, pooling=pooling, method=method or TuningMethod())
        rows, tokens = read_body_config(family.network).vocab_size, family.encoder.vocab_size
        if tokens > rows:
            raise RunFolderError(
                f"the tokenizer has {tokens:,} tokens, the network {rows:,} embeddings",
                where=str(folder),
                hint="use the tokenizer that belongs to this model",
            )
        return family

    @property
    def network(self) -> Path:
        """Where body and tokenizer lie: older sentence encoders have a subfolder for them."""
        return body_folder(self.folder)

    @cached_property
    def encoder(self) -> TextEncoder:
        """The folder's tokenizer."""
        return load_encoder(self.network)

    @cached_property
    def longest(self) -> int:
        """The most tokens of a text: what network and tokenizer allow, and no more than time does."""
        positions = read_body_config(self.network).max_length
        return min(positions, self.encoder.model_max_length or _MOST_TOKENS, _MOST_TOKENS)

    def untrained(self, task: Any, items: Indices) -> Start:
        """See `Family`."""
        return self.start(task, {}, items, seed=0, progress=SILENT)

    def plan(self, task: Any, start: Start, seconds: float | None, max_length: int) -> dict[str, Any]:  # noqa: ARG002
        """See `Family`."""
        return {"base": str(self.folder)}

    def start(self, task: Any, plan: Plan, items: Indices, *, seed: int, progress: Progress) -> Start:  # noqa: ARG002
        """See `Family`."""
        with seeded(seed):
            net = load_body(
                self.network,
                len(task.label_names),
                dropout=self.dropout,
                pad_token_id=self.encoder.pad_token_id,
                pooling=self.pooling or _own_pooling(self.folder),
            )
        apply_method(net, self.method, seed=seed)
        return Start(net, self.encoder)


def _own_pooling(folder: Path) -> str | None:
    """ "mean" where `folder` is of a sentence encoder that pools so; None: what is usual for the network."""
    return "mean" if is_sentence_folder(folder) and pooling_of(folder) == ("mean",) else None
