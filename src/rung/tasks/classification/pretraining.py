"""Transformers on the user's own text: from scratch, or pretrained before any label is looked at.

The text of pretraining is what is not labelled, and the texts of all training items: a label costs money, the text is
there. So the fits of a comparison, on few labels or many, share one pretraining; its seed is the plan's.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Literal

import torch

from rung.data.language_batches import NextTokenBatches
from rung.data.masked_batches import MaskedTokenBatches, Masking
from rung.data.text_encoder import EncodedTexts, TextEncoder, train_byte_pairs
from rung.data.text_windows import TextWindows
from rung.data.wordpiece import choose_vocab_size, train_wordpieces
from rung.errors import PlanError
from rung.nets.classifier import Classifier, build_classifier
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.encoder_config import EncoderConfig
from rung.nets.masked_language_model import MaskedLanguageModel
from rung.objectives.masked_token import MaskedToken
from rung.objectives.next_token import NextToken
from rung.progress import Progress
from rung.tasks.classification.families import Start, training_texts
from rung.tasks.classification.network_training import (
    Training,
    device,
    faster_precision,
    optimizer_of,
    seconds_per_step,
    seeded,
    train_to_best,
)
from rung.tasks.task import Indices, Plan
from rung.training.contracts import Batches, LoopSettings, Objective, Precision
from rung.training.guards import GuardSettings
from rung.training.schedule import Schedule

Kind = Literal["encoder", "decoder"]

_MOST_EPOCHS = 30
_MOST_STEPS_UNTIMED = 3000


@dataclass(frozen=True)
class Pretraining:
    """How to pretrain: `steps` steps of `batch_size` texts of at most `max_length` tokens."""

    steps: int
    max_length: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    precision: Precision = "fp32"

    def settings(self, *, seed: int) -> LoopSettings:
        """What the loop is told."""
        return LoopSettings(
            schedule=Schedule.warmup_flat_decay(
                self.steps, warmup=min(100, self.steps // 10), decay_fraction=0.5, final=0.0
            ),
            batch_size=self.batch_size,
            micro_batch_size=self.batch_size,
            seed=seed,
            precision=self.precision,
            keep_last=1,
            guard=GuardSettings(spike_threshold=None),
        )

    @property
    def training(self) -> Training:
        """The optimiser's part."""
        return Training(epochs=1, batch_size=self.batch_size, learning_rate=self.learning_rate, weight_decay=0.01)


@dataclass
class _Pretrained:
    """The outcome of one pretraining, kept for the next fit."""

    key: str
    encoder: TextEncoder
    body: dict[str, torch.Tensor]
    seconds: float


@dataclass(frozen=True)
class TransformerNetworks:
    """Small Transformers: a BERT encoder or a Qwen3 decoder, `pretrained` on the user's text or not.

    A decoder is always to be pretrained: without, it is an encoder that may not look ahead.
    """

    kind: Kind
    pretrained: bool
    hidden_size: int = 128
    num_hidden_layers: int = 2
    dropout: float = 0.1
    longest: int = 256

    _last: list[_Pretrained] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def earlier_share(self) -> float:
        """See `Family`."""
        return 0.6 if self.pretrained else 0.0

    def untrained(self, task: Any, items: Indices) -> Start:
        """See `Family`."""
        encoder = self._encoder(self._texts(task, items))
        with seeded(0):
            return Start(self._classifier(encoder, len(task.label_names)), encoder)

    def plan(self, task: Any, start: Start, seconds: float | None, max_length: int) -> dict[str, Any]:
        """What `start` needs to know of pretraining that takes `seconds`. PlanError when there is no time for it."""
        if not self.pretrained:
            return {}
        texts = self._samples(start.encoder, pretraining_texts(task), max_length)
        wanted = Pretraining(
            steps=min(_MOST_STEPS_UNTIMED, math.ceil(_MOST_EPOCHS * len(texts) / 32)),
            max_length=max_length,
            batch_size=min(32, len(texts)),
        )
        if seconds is not None:
            net, objective = self._language_model(start)
            batches = self._batches(start.encoder, texts, wanted, seed=0)

            def timed(precision: Precision, places: int) -> float:
                settings, training = replace(wanted, precision=precision).settings(seed=0), wanted.training
                return seconds_per_step(
                    net.to(device()), objective, batches, settings, training, samples=len(texts), places=places
                )

            precision, step = faster_precision(timed)
            most = math.ceil(_MOST_EPOCHS * len(texts) / wanted.batch_size)
            wanted = replace(wanted, steps=min(most, int(seconds / step)), precision=precision)
            if wanted.steps < 1:
                raise PlanError(
                    f"no step of pretraining fits into {seconds:.1f} s",
                    where="pretraining",
                    hint="give more minutes, or leave this rung out with --rungs",
                )
        return {"pretraining": asdict(wanted)}

    def start(self, task: Any, plan: Plan, items: Indices, *, seed: int, progress: Progress) -> Start:
        """See `Family`."""
        if not self.pretrained:
            encoder = self._encoder(self._texts(task, items))
            with seeded(seed):
                return Start(self._classifier(encoder, len(task.label_names)), encoder)
        found = self._pretrain(task, Pretraining(**plan["pretraining"]), seed=plan["seed"], progress=progress)
        with seeded(seed):
            net = self._classifier(found.encoder, len(task.label_names))
        net.body.load_state_dict(found.body)
        steps = plan["pretraining"]["steps"]
        note = f"pretrained for {steps:,} steps on the text itself, once for all fits ({found.seconds:.0f} s, included)"
        return Start(net, found.encoder, found.seconds, note)

    def _pretrain(self, task: Any, wanted: Pretraining, *, seed: int, progress: Progress) -> _Pretrained:
        """Pretrain, or take what was pretrained with the same text, plan and seed just before."""
        lines = pretraining_texts(task)
        digest = hashlib.sha256("\0".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
        key = json.dumps([digest, asdict(wanted), seed, task.threads])
        if self._last and self._last[0].key == key:
            return self._last[0]
        began = time.perf_counter()
        encoder = self._encoder(lines)
        texts = self._samples(encoder, lines, wanted.max_length)
        with seeded(seed):
            start = Start(self._classifier(encoder, len(task.label_names)), encoder)
            net, objective = self._language_model(start)
        train_to_best(
            net.to(device()),
            objective,
            self._batches(encoder, texts, wanted, seed=seed),
            optimizer_of(net, wanted.training),
            wanted.settings(seed=seed),
            validate=None,
            near=Path(gettempdir()) / "rung-pretraining",
            label=f"{self.kind}: pretraining",
            progress=progress,
        )
        body = {name: tensor.cpu().clone() for name, tensor in start.net.body.state_dict().items()}
        self._last[:] = [_Pretrained(key, encoder, body, time.perf_counter() - began)]
        return self._last[0]

    def _texts(self, task: Any, items: Indices) -> list[str]:
        return pretraining_texts(task) if self.pretrained else training_texts(task, items)

    def _encoder(self, texts: list[str]) -> TextEncoder:
        train = train_wordpieces if self.kind == "encoder" else train_byte_pairs
        return train(texts, vocab_size=choose_vocab_size(sum(map(len, texts))))

    def _classifier(self, encoder: TextEncoder, num_labels: int) -> Classifier:
        config: EncoderConfig | DecoderConfig
        if self.kind == "encoder":
            config = EncoderConfig(
                vocab_size=encoder.vocab_size,
                hidden_size=self.hidden_size,
                num_hidden_layers=self.num_hidden_layers,
                num_attention_heads=self.hidden_size // 64,
                intermediate_size=4 * self.hidden_size,
                max_position_embeddings=self.longest,
                hidden_dropout_prob=self.dropout,
                attention_probs_dropout_prob=0.0,  # its masks would cost the fused attention
                pad_token_id=encoder.pad_token_id,
            )
        else:
            config = DecoderConfig(
                vocab_size=encoder.vocab_size,
                hidden_size=self.hidden_size,
                num_hidden_layers=self.num_hidden_layers,
                num_attention_heads=self.hidden_size // 64,
                num_key_value_heads=self.hidden_size // 64,
                head_dim=64,
                intermediate_size=self.hidden_size * 8 // 3 // 64 * 64,
                max_position_embeddings=self.longest,
                bos_token_id=encoder.pad_token_id,
                eos_token_id=encoder.pad_token_id,
                pad_token_id=encoder.pad_token_id,
            )
        return build_classifier(config, num_labels, dropout=self.dropout)

    def _language_model(self, start: Start) -> tuple[torch.nn.Module, Objective]:
        """A language model around the classifier's body, and its objective."""
        body: Any = start.net.body
        if self.kind == "encoder":
            return MaskedLanguageModel(body), MaskedToken()
        tensors = {f"model.{name}": tensor for name, tensor in body.named_parameters()}
        return CausalLM(body.config, dropout=self.dropout, tensors=tensors), NextToken()

    def _samples(self, encoder: TextEncoder, texts: list[str], max_length: int) -> EncodedTexts | TextWindows:
        """The texts in samples of at most `max_length` tokens; what is longer goes on in the next."""
        if self.kind == "encoder":
            return TextWindows.of_texts(texts, encoder=encoder, max_length=max_length)
        return encoder.encode(texts, max_length=max_length, keep_rest=True)

    def _batches(
        self, encoder: TextEncoder, samples: EncodedTexts | TextWindows, wanted: Pretraining, *, seed: int
    ) -> Batches:
        if isinstance(samples, TextWindows):
            return MaskedTokenBatches(samples, Masking(encoder, seed=seed), batch_size=wanted.batch_size, seed=seed)
        end = encoder.pad_token_id
        return NextTokenBatches(samples, end_token_id=end, batch_size=wanted.batch_size, seed=seed)


def pretraining_texts(task: Any) -> list[str]:
    """All text that may be read without labels, in an order of its own: that of rows and files does not matter."""
    return sorted([*task.unlabelled, *task.items["train"].texts])
