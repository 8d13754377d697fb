"""A new head on a frozen body: its states are computed once, and logistic regression on them is solved exactly.

Training the head in steps would run the body anew for every text in every epoch, to come near the same solution.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rung.data.label_batches import collate
from rung.data.text_encoder import EncodedTexts
from rung.nets.classifier import Classifier
from rung.progress import Progress
from rung.tasks.classification.network_training import LabelledTexts

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Values of C, the inverse of the penalty, that are tried; validation items choose. Features have variance 1."""
_AT_ONCE = 64
_ITERATIONS = 1000
_SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Solved:
    """The penalty that was chosen, and whether the solver converged with it."""

    C: float
    converged: bool


@torch.inference_mode()
def pooled_states(net: Classifier, texts: EncodedTexts, pad_token_id: int) -> NDArray[np.float32]:
    """What `net`'s head is given, (texts, hidden) float32, without dropout."""
    net.eval()
    device = next(net.parameters()).device
    states = np.empty((len(texts), net.head.in_features), dtype=np.float32)
    by_length = np.argsort(texts.lengths, kind="stable")
    for start in range(0, len(texts), _AT_ONCE):
        rows = by_length[start : start + _AT_ONCE]
        batch = {name: tensor.to(device) for name, tensor in collate(texts, rows, pad_token_id).items()}
        states[rows] = net.pooled(net.embed(batch["input_ids"]), batch.get("mask")).float().cpu().numpy()
    return states


@dataclass(frozen=True)
class States:
    """Pooled states (items, hidden) float32 of a body, and the class of each item."""

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def states_of(net: Classifier, texts: LabelledTexts, pad_token_id: int) -> States:
    """The pooled states of labelled texts."""
    return States(pooled_states(net, texts.texts, pad_token_id), texts.labels)


def solve_head(net: Classifier, train: States, valid: States, *, progress: Progress) -> Solved:
    """Give `net` the head that logistic regression finds on the states `train`, its penalty chosen on `valid`.

    Without validation items C is 1. States are brought to mean 0 and variance 1 first, which the head takes into its
    weights; where it has no bias (a decoder's), only to variance 1.
    """
    has_bias = net.head.bias is not None
    centre = train.vectors.mean(0) if has_bias else np.zeros(train.vectors.shape[1], np.float32)
    scale = np.maximum(train.vectors.std(0), _SMALLEST_DEVIATION)
    inputs, judged, tried = (train.vectors - centre) / scale, (valid.vectors - centre) / scale, []
    strengths = STRENGTHS if len(valid) else (1.0,)
    with progress.task("solving for the head", len(strengths), "penalties") as advance:
        for strength in strengths:
            weights, bias, converged = _solve(inputs, train.labels, net.num_labels, strength, has_bias)
            quality = _quality(judged @ weights.T + bias, valid.labels)
            tried.append((quality, Solved(strength, converged), weights, bias))
            advance(1)
    _, solved, weights, bias = max(tried, key=lambda one: one[0])
    weights = weights / scale
    with torch.no_grad():
        net.head.weight.copy_(torch.from_numpy(weights))
        if net.head.bias is not None:
            net.head.bias.copy_(torch.from_numpy(bias - weights @ centre))
    return solved


def _solve(
    states: NDArray[np.float32], labels: NDArray[np.int64], classes: int, strength: float, has_bias: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Weights (classes, hidden) and biases (classes,) by L-BFGS, and whether it converged.

    A class without an item is never chosen by an item seen: its weights are 0 and its bias is far down.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    found = np.unique(labels)
    weights, bias = np.zeros((classes, states.shape[1])), np.full(classes, -30.0 if has_bias else 0.0)
    if len(found) == 1:
        bias[found] = 0.0
        return weights, bias, True
    solver = LogisticRegression(C=strength, max_iter=_ITERATIONS, fit_intercept=has_bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by the number of iterations
        solver.fit(states, labels)
    rows, offsets = solver.coef_, np.broadcast_to(solver.intercept_, len(solver.coef_))
    if len(found) == 2:  # one row, for the second class against the first
        rows, offsets = np.vstack([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
    weights[found], bias[found] = rows, offsets
    return weights, bias, bool(solver.n_iter_.max() < _ITERATIONS)


def _quality(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy, and mean log-probability of the labels, of scores (items, classes); zeros without items."""
    if not len(labels):
        return 0.0, 0.0
    shifted = scores - scores.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return float((scores.argmax(1) == labels).mean()), float(logs[np.arange(len(labels)), labels].mean())
