"""Training speed of the convolutional and recurrent rungs against a plain PyTorch loop, as tutorials write it.

    python bench/classifier_training.py                          all nets, made-up texts of TREC's lengths
    python bench/classifier_training.py --nets cnn --threads 1

The plain loop has the same net written with stock modules (three `nn.Conv1d`; a packed bidirectional `nn.LSTM` and
friends), the same batch size, optimiser settings and texts, a `DataLoader` that pads each batch, clipping, and nothing
else: no validation, no log, no early stopping. Ours is the whole loop with its log. An epoch of each in turn, in this
one process; medians are compared. A ratio above 1: Rung is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rung.data.label_batches import LabelBatches
from rung.data.text_encoder import EncodedTexts
from rung.nets.classifier import build_classifier
from rung.nets.convolution import ConvolutionConfig
from rung.nets.recurrent import RecurrentConfig
from rung.objectives.classification import Classification
from rung.training import loop
from rung.training.contracts import LoopSettings
from rung.training.optimizers import build_optimizer
from rung.training.precision import tune_allocator
from rung.training.schedule import Schedule

CLASSES, BATCH, LEARNING_RATE = 6, 50, 1e-3
NETS = ("cnn", "rnn", "lstm", "gru")


class PlainNet(nn.Module):
    """The same networks with torch's stock modules."""

    def __init__(self, kind: str, config: Any) -> None:
        super().__init__()
        self.kind = kind
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=0)
        if kind == "cnn":
            widths = config.filter_sizes
            self.convolutions = nn.ModuleList(
                nn.Conv1d(config.embedding_size, config.num_filters, w, padding=w - 1) for w in widths
            )
        else:
            cell = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind]
            self.recurrent = cell(config.embedding_size, config.hidden_size // 2, bidirectional=True, batch_first=True)
            self.dense, self.query = nn.Linear(config.hidden_size, config.hidden_size), nn.Linear(config.hidden_size, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, CLASSES)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Scores (batch, classes)."""
        embedded = self.embedding(ids)
        if self.kind == "cnn":
            channels = embedded.transpose(1, 2)
            pooled = torch.cat([conv(channels).relu().max(2).values for conv in self.convolutions], 1)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(
                self.dropout(embedded), lengths, batch_first=True, enforce_sorted=False
            )
            hidden, _ = nn.utils.rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
            scores = self.query(torch.tanh(self.dense(hidden))).squeeze(-1)
            scores = scores.masked_fill(torch.arange(hidden.shape[1]) >= lengths[:, None], float("-inf"))
            pooled = (scores.softmax(1).unsqueeze(-1) * hidden).sum(1)
        scores_of_classes: torch.Tensor = self.output(self.dropout(pooled))
        return scores_of_classes


def config_of(kind: str, vocabulary: int) -> Any:
    """The rung's default shape."""
    if kind == "cnn":
        return ConvolutionConfig(vocab_size=vocabulary)
    return RecurrentConfig(vocab_size=vocabulary, cell=kind)  # type: ignore[arg-type]


def plain_epoch(kind: str, config: Any, texts: EncodedTexts, labels: np.ndarray) -> Callable[[], None]:
    """An epoch of the plain loop."""
    net = PlainNet(kind, config)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    rows = [
        torch.from_numpy(texts.ids[s : s + n].astype(np.int64))
        for s, n in zip(texts.starts, texts.lengths, strict=True)
    ]

    def collate(batch: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, ...]:
        ids = [row for row, _ in batch]
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        return padded, torch.tensor([len(row) for row in ids]), torch.tensor([label for _, label in batch])

    data: Any = list(zip(rows, labels.tolist(), strict=True))
    loader: Any = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, collate_fn=collate)

    def epoch() -> None:
        net.train()
        for ids, lengths, wanted in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(ids, lengths), wanted).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()

    return epoch


def our_epoch(config: Any, texts: EncodedTexts, labels: np.ndarray) -> Callable[[], None]:
    """An epoch of the loop."""
    net = build_classifier(config, CLASSES)
    optimizer = build_optimizer(net, name="adamw", learning_rate=LEARNING_RATE, betas=(0.9, 0.999))
    steps = len(texts) // BATCH
    settings = LoopSettings(
        schedule=Schedule.warmup_flat_decay(steps, warmup=0, decay_fraction=0.5, final=0.0),
        batch_size=BATCH,
        micro_batch_size=BATCH,
    )
    batches = LabelBatches(texts, labels, pad_token_id=0, batch_size=BATCH, seed=0)

    def epoch() -> None:
        with tempfile.TemporaryDirectory() as folder:
            loop.train(net, Classification(), batches, optimizer, settings, run_folder=Path(folder), save_model=None)

    return epoch


def main() -> None:
    tune_allocator()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(2.3, 0.35, options.texts), 3, 37).astype(np.int64)
    texts = EncodedTexts(draw.integers(2, options.vocabulary, lengths.sum()).astype(np.int32), lengths)
    labels = draw.integers(0, CLASSES, options.texts)
    result: dict[str, dict[str, float]] = {}
    for kind in options.nets.split(","):
        config = config_of(kind, options.vocabulary)
        epochs = {"plain": plain_epoch(kind, config, texts, labels), "rung": our_epoch(config, texts, labels)}
        seconds: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(options.rounds + 1):
            for name, epoch in epochs.items():
                began = time.perf_counter()
                epoch()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
        median = {name: statistics.median(times) for name, times in seconds.items()}
        rates = {name: round(options.texts / value) for name, value in median.items()}
        result[kind] = {**rates, "ratio": round(median["plain"] / median["rung"], 2)}
        print(f"{kind:<6} texts/s: plain {rates['plain']:>7,}  rung {rates['rung']:>7,}  ratio {result[kind]['ratio']}")
    print(json.dumps({"bench": "classifier_training", "threads": options.threads, "texts": options.texts, **result}))


if __name__ == "__main__":
    main()
