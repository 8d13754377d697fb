"""Bodies as ONNX graphs: token ids to hidden states (batch, time, hidden). What padding has for states is nobody's."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from rung.export.onnx_graph import INPUT_IDS, Graph, Value
from rung.nets.convolution import ConvolutionalBody
from rung.nets.encoder import Embeddings, Encoder, EncoderLayer, Output, SelfAttention
from rung.nets.recurrent import RecurrentBody

# Operator, and which of torch's gates stands where in ONNX's weights. torch: LSTM i f g o, GRU r z n
# (docs.pytorch.org, nn.LSTM and nn.GRU); ONNX: LSTM i o f c, GRU z r h (onnx.ai/onnx/operators).
_CELLS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "rnn": ("RNN", (0,), {}),
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
    # torch multiplies the new gate's hidden part by the reset gate after its matrix product and bias
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
}
# ONNX's weights, and torch's that make them up.
_WEIGHTS = {"W": ("weight_ih_l0",), "R": ("weight_hh_l0",), "B": ("bias_ih_l0", "bias_hh_l0")}


def body_states(graph: Graph, body: nn.Module) -> Value:
    """The hidden states (batch, time, hidden) of an encoder, a convolutional or a recurrent network."""
    match body:
        case Encoder():
            return _encoder(graph, body)
        case ConvolutionalBody():
            return _convolution(graph, body)
        case RecurrentBody():
            return _recurrent(graph, body)
        case _:
            raise NotImplementedError(type(body).__name__)


# Encoders -------------------------------------------------------------------------------------------------------------


def _encoder(graph: Graph, body: Encoder) -> Value:
    x = _embeddings(graph, body.embeddings)
    allowed = graph.unsqueezed(graph.is_real, 1, 2)  # (batch, heads, queries, keys): every query sees the real keys
    for layer in cast("Sequence[EncoderLayer]", body.encoder["layer"]):
        mixed = _attention(graph, x, allowed, cast("SelfAttention", layer.attention["self"]))
        x = _add_and_norm(graph, mixed, x, cast("Output", layer.attention["output"]))
        inner = graph.linear(x, cast("nn.Linear", layer.intermediate["dense"]))
        x = _add_and_norm(graph, graph.activation(inner, body.config.hidden_act), x, layer.output)
    return x


def _embeddings(graph: Graph, layer: Embeddings) -> Value:
    x = graph.node("Gather", graph.parameter(layer.word_embeddings.weight), INPUT_IDS)
    places = graph.places
    if layer.first_position:
        places = graph.node("Add", places, graph.constant(layer.first_position, np.int64))
    x = graph.node("Add", x, graph.node("Gather", graph.parameter(layer.position_embeddings.weight), places))
    if layer.token_type_embeddings is not None:
        types = graph.parameter(layer.token_type_embeddings.weight)
        x = graph.node("Add", x, graph.node("Gather", types, graph.constant(0, np.int64)))
    return graph.layer_norm(x, layer.LayerNorm)


def _attention(graph: Graph, x: Value, allowed: Value, layer: SelfAttention) -> Value:
    def heads(projection: nn.Linear, *order: int) -> Value:
        split = graph.reshaped(graph.linear(x, projection), (0, 0, layer.heads, -1))
        return graph.node("Transpose", split, perm=order)

    query, value = heads(layer.query, 0, 2, 1, 3), heads(layer.value, 0, 2, 1, 3)
    key = heads(layer.key, 0, 2, 3, 1)
    scale = 1 / sqrt(layer.query.out_features // layer.heads)
    scores = graph.node("Mul", graph.node("MatMul", query, key), graph.constant(scale))
    weights = graph.node("Softmax", graph.masked(scores, allowed), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", weights, value), perm=(0, 2, 1, 3))
    return graph.reshaped(mixed, (0, 0, layer.query.out_features))


def _add_and_norm(graph: Graph, x: Value, residual: Value, layer: Output) -> Value:
    return graph.layer_norm(graph.node("Add", graph.linear(x, layer.dense), residual), layer.LayerNorm)


# Classic networks -----------------------------------------------------------------------------------------------------


def _convolution(graph: Graph, body: ConvolutionalBody) -> Value:
    x = graph.node("Gather", graph.parameter(body.embed_tokens.weight), INPUT_IDS)
    x = graph.node("Mul", x, graph.unsqueezed(graph.real_share, 2))
    channels = graph.node("Transpose", x, perm=(0, 2, 1))
    responses = []
    for layer, width in zip(body.convolutions, body.config.filter_sizes, strict=True):
        convolution = cast("nn.Conv1d", layer)
        assert convolution.bias is not None  # noqa: S101 - for the type checker: Conv1d has one unless told otherwise
        weights = graph.parameter(convolution.weight), graph.parameter(convolution.bias)
        responses.append(graph.node("Conv", channels, *weights, pads=((width - 1) // 2, width // 2)))
    joined = graph.node("Relu", graph.node("Concat", *responses, axis=1))
    return graph.node("Transpose", joined, perm=(0, 2, 1))


def _recurrent(graph: Graph, body: RecurrentBody) -> Value:
    operator, order, attributes = _CELLS[body.config.cell]
    x = graph.node("Gather", graph.parameter(body.embed_tokens.weight), INPUT_IDS)
    x = graph.node("Transpose", x, perm=(1, 0, 2))  # these operators take (time, batch, features)
    half, lengths = body.config.hidden_size // 2, graph.as_int32(graph.lengths)
    for number, directions in enumerate(zip(body.ahead, body.back, strict=True)):
        weights = (
            graph.joined(
                f"layer.{number}.{kind}",
                [_in_order([getattr(layer, part) for part in parts], order) for layer in directions],
            )
            for kind, parts in _WEIGHTS.items()
        )
        states = graph.node(operator, x, *weights, lengths, hidden_size=half, direction="bidirectional", **attributes)
        x = graph.reshaped(graph.node("Transpose", states, perm=(0, 2, 1, 3)), (0, 0, 2 * half))
    return graph.node("Transpose", x, perm=(1, 0, 2))


def _in_order(stacked: Sequence[torch.Tensor], order: tuple[int, ...]) -> torch.Tensor:
    """Tensors whose first axis holds gate after gate, one after the other, their gates in another `order`."""
    return torch.cat([tensor.chunk(len(order))[gate] for tensor in stacked for gate in order])
