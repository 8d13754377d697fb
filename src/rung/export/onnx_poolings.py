"""Poolings as ONNX graphs, and what sentence encoders do after them: hidden states to one vector for each text.

Each pooling maps (batch, time, hidden) to (batch, hidden).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from rung.export.onnx_graph import Graph, Value
from rung.nets.pooling import AttentionPooling, FirstTokenPooling, LastTokenPooling, MaxPooling, MeanPooling
from rung.nets.sentence_encoder import ClsPooling, DenseConfig, SentenceNet, WeightedMeanPooling

_FIRST_TOKEN: dict[Callable[[torch.Tensor], torch.Tensor], str] = {torch.tanh: "tanh", torch.relu: "relu"}
_SHORTEST = 1e-12  # vectors are divided by no less than this, as in torch's F.normalize


def pooled(graph: Graph, pooling: nn.Module, hidden: Value) -> Value:
    """The states (batch, time, hidden) of texts as one vector each, (batch, hidden)."""
    return _POOLINGS[type(pooling)](graph, pooling, hidden)


def sentence_embedding(graph: Graph, net: SentenceNet, hidden: Value) -> Value:
    """The states of a sentence encoder's body as its embeddings (batch, dimension)."""
    vectors = [pooled(graph, pooling, hidden) for pooling in net.poolings]
    x = vectors[0] if len(vectors) == 1 else graph.node("Concat", *vectors, axis=1)
    dense = iter(net.dense_layers())
    for step in net.config.after:
        if isinstance(step, DenseConfig):
            name = step.activation.rpartition(".")[2].lower()  # DENSE_ACTIVATIONS: Identity, Tanh, ReLU, GELU
            x = graph.activation(graph.linear(x, next(dense).linear), name)
        else:
            length = graph.node("ReduceL2", x, axes=[1], keepdims=1)
            x = graph.node("Div", x, graph.node("Max", length, graph.constant(_SHORTEST)))
    return x


def _max(graph: Graph, _: MaxPooling, hidden: Value) -> Value:
    real = graph.masked(hidden, graph.unsqueezed(graph.is_real, 2))
    return graph.node("ReduceMax", real, axes=[1], keepdims=0)


def _mean(graph: Graph, _: MeanPooling, hidden: Value) -> Value:
    return _weighted_mean(graph, graph.real_share, hidden)


def _mean_by_place(graph: Graph, _: WeightedMeanPooling, hidden: Value) -> Value:
    places = graph.node("Add", graph.as_float(graph.places), graph.constant(1.0))
    return _weighted_mean(graph, graph.node("Mul", graph.real_share, places), hidden)


def _weighted_mean(graph: Graph, weights: Value, hidden: Value) -> Value:
    total = graph.node("ReduceSum", weights, graph.constant([1], np.int64), keepdims=1)
    return graph.weighted_sum(graph.node("Div", weights, total), hidden)


def _attention(graph: Graph, pooling: AttentionPooling, hidden: Value) -> Value:
    scores = graph.linear(graph.activation(graph.linear(hidden, pooling.dense), "tanh"), pooling.query)
    flat = graph.node("Squeeze", scores, graph.constant([2], np.int64))
    return graph.weighted_sum(graph.node("Softmax", graph.masked(flat, graph.is_real), axis=1), hidden)


def _first_state(graph: Graph, _: nn.Module, hidden: Value) -> Value:
    return graph.node("Gather", hidden, graph.constant(0, np.int64), axis=1)


def _first_token(graph: Graph, pooling: FirstTokenPooling, hidden: Value) -> Value:
    first = graph.linear(_first_state(graph, pooling, hidden), pooling.dense)
    return graph.activation(first, _FIRST_TOKEN[pooling.activation])


def _last_token(graph: Graph, _: LastTokenPooling, hidden: Value) -> Value:
    last = graph.node("Sub", graph.lengths, graph.constant(1, np.int64))
    is_last = graph.node("Equal", graph.places, graph.unsqueezed(last, 1))
    return graph.weighted_sum(graph.as_float(is_last), hidden)


_POOLINGS: dict[type[nn.Module], Callable[[Graph, Any, Value], Value]] = {
    AttentionPooling: _attention,
    ClsPooling: _first_state,
    FirstTokenPooling: _first_token,
    LastTokenPooling: _last_token,
    MaxPooling: _max,
    MeanPooling: _mean,
    WeightedMeanPooling: _mean_by_place,
}
