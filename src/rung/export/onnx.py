"""An ONNX folder of an encoder or a classic network, laid out as optimum does, for onnxruntime.

    model.onnx                             token ids and their mask to scores, vectors or states
    config.json                            shape and labels, as in the source
    tokenizer.json, tokenizer_config.json

The one output is called `logits`, `sentence_embedding` or `last_hidden_state`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rung.data.text_encoder import TextEncoder
from rung.errors import UsageError
from rung.export.onnx_bodies import body_states
from rung.export.onnx_graph import Graph, Value, require_onnx
from rung.export.onnx_poolings import pooled, sentence_embedding
from rung.export.source import Source
from rung.nets.architectures import FAMILIES
from rung.nets.classifier import Classifier
from rung.nets.pretrained import CONFIG, read_config_file
from rung.nets.sentence_encoder import SentenceNet
from rung.nets.sentence_folder import body_folder
from rung.nets.tagger import Tagger
from rung.runfolder import write_json

_EXPORTED = (*FAMILIES["encoders"], *FAMILIES["Rung's own classifiers"])
_COUNTED = ("rung-feedforward", "rung-linear", "rung-majority", "rung-naive-bayes")
_ANY_LENGTH = int(1e30)  # how transformers writes that a tokenizer sets no limit


@dataclass(frozen=True)
class Exported:
    """What of a network goes into the file, and what the file's one output is.

    Ids lie below `vocab_size`. `axes` are those of the output before its last, which is `width` wide. `add` adds the
    network to a graph and returns the output; `own` is what Rung's network itself says about ids and mask, (batch,
    time) both, mask true for tokens.
    """

    net: torch.nn.Module
    vocab_size: int
    output: str
    axes: tuple[str, ...]
    width: int
    add: Callable[[Graph], Value]
    own: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def write_onnx(source: Source, folder: Path, dtype: str | None) -> tuple[str, ...]:
    """Write the model of `source` into the empty `folder`; return notes on what a reader has to do itself.

    Raises UsageError for networks that are not written in this format and for other dtypes than "f32", RunFolderError
    when the package `onnx` is missing or the model is damaged.
    """
    if dtype not in (None, "f32"):
        raise UsageError(
            f"ONNX files are written in f32, not in {dtype}",
            hint="leave --dtype out; onnxruntime.quantization makes smaller files of this one",
        )
    _require_exported(source)
    onnx = require_onnx(str(source.run))
    exported = open_exported(source)
    graph = Graph(exported.net, onnx)
    graph.write(folder, exported.add(graph), exported.output, (*exported.axes, exported.width))
    home = body_folder(source.folder)
    encoder = TextEncoder.load(home)
    encoder.save(folder, model_max_length=longest_text(exported.net, encoder) or _ANY_LENGTH)
    write_json(folder / CONFIG, read_config_file(home))
    return tuple(_notes(exported.net, encoder))


def open_exported(source: Source) -> Exported:
    """The network of `source` and how it goes into a graph. RunFolderError as the loader of its kind."""
    return _KINDS[source.computes](source.folder)


def longest_text(net: torch.nn.Module, encoder: TextEncoder) -> int | None:
    """The most tokens of a text: what positions, tokenizer and a sentence encoder's settings allow; None: any number.

    Classic networks have no positions: the limit of their tokenizer is where training cut texts off.
    """
    config: Any = net.config
    limits = (getattr(config, "max_length", None), encoder.model_max_length)
    return min((limit for limit in limits if limit is not None), default=None)


def _require_exported(source: Source) -> None:
    """Raise UsageError for a network that is not written as ONNX, or whose head is not known here."""
    kind = source.model_type
    if kind in _EXPORTED:
        if source.computes == "feature-extraction" and "For" in source.architecture:
            raise UsageError(f"the head of {source.architecture} is not known here", where=str(source.run))
        return
    family = next((family for family, kinds in FAMILIES.items() if kind in kinds), None)
    problem = f"a network of type {kind} is not written as ONNX: encoders and Rung's own classifiers are"
    hint = {"decoders": "--to gguf, or --to hf", "encoder-decoders": "--to hf"}.get(family or "")
    if family == "decoders" and source.computes == "text-classification":  # its head has no place in a GGUF file
        hint = "--to hf"
    if kind in _COUNTED:
        problem = f"{kind} counts words and n-grams of its own, and no tokenizer.json tells other programs how"
        hint = "networks that read tokens are written: cnn, rnn, gru, lstm and the encoders"
    elif source.header.get("task") == "word-vectors":
        hint = "--to word2vec"
    raise UsageError(problem, where=str(source.run), hint=hint)


def _notes(net: torch.nn.Module, encoder: TextEncoder) -> Iterator[str]:
    """What Rung does to texts besides what `tokenizer.json` says."""
    if isinstance(net, SentenceNet) and net.config.default_prompt is not None:
        yield f"put {net.config.prompts[net.config.default_prompt]!r} before every text"
    if encoder.encode([""]).ids.tolist() == [encoder.pad_token_id]:
        yield f"a text without any token (white space alone) is one padding token, {encoder.pad_token_id}, its mask 1"


# Kinds of networks ----------------------------------------------------------------------------------------------------


def _classifier(folder: Path) -> Exported:
    from rung.nets.classifier_folder import load_classifier

    net = load_classifier(folder).eval()

    def add(graph: Graph) -> Value:
        return graph.linear(pooled(graph, net.pooling, body_states(graph, net.body)), net.head)

    return Exported(net, net.config.vocab_size, "logits", ("batch",), net.num_labels, add, _of_batch(net))


def _tagger(folder: Path) -> Exported:
    from rung.nets.tagger import load_tagger

    net = load_tagger(folder).eval()

    def add(graph: Graph) -> Value:
        return graph.linear(body_states(graph, net.body), net.head)

    return Exported(net, net.config.vocab_size, "logits", ("batch", "time"), net.head.out_features, add, _of_batch(net))


def _sentence_encoder(folder: Path) -> Exported:
    from rung.nets.sentence_folder import load_sentence_net

    net = load_sentence_net(folder).eval()

    def add(graph: Graph) -> Value:
        return sentence_embedding(graph, net, body_states(graph, net.body))

    return Exported(
        net, net.body.config.vocab_size, "sentence_embedding", ("batch",), net.dimension, add, _of_batch(net)
    )


def _masked_language_model(folder: Path) -> Exported:
    from rung.nets.masked_language_model import load_masked_language_model

    net = load_masked_language_model(folder).eval()

    def add(graph: Graph) -> Value:
        predictions, hidden = net.predictions, body_states(graph, net.bert)
        inner = graph.linear(hidden, predictions.transform.dense)
        # RoBERTa's head has gelu, whatever its layers have: see `Transform`.
        act = "gelu" if net.config.model_type == "roberta" else net.config.hidden_act
        transformed = graph.layer_norm(graph.activation(inner, act), predictions.transform.LayerNorm)
        tied = graph.node("Transpose", graph.parameter(net.output_weight), perm=(1, 0))
        return graph.node("Add", graph.node("MatMul", transformed, tied), graph.parameter(predictions.bias))

    return Exported(net, net.config.vocab_size, "logits", ("batch", "time"), net.config.vocab_size, add, net)


def _encoder(folder: Path) -> Exported:
    from rung.nets.encoder_folder import load_encoder

    net = load_encoder(folder).eval()

    def own(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = net(net.embed(ids), mask).hidden
        return hidden

    width = net.config.hidden_size
    return Exported(
        net,
        net.config.vocab_size,
        "last_hidden_state",
        ("batch", "time"),
        width,
        lambda graph: body_states(graph, net),
        own,
    )


def _of_batch(net: Classifier | SentenceNet | Tagger) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda ids, mask: net({"input_ids": ids, "mask": mask})


_KINDS: dict[str, Callable[[Path], Exported]] = {
    "text-classification": _classifier,
    "token-classification": _tagger,
    "sentence-similarity": _sentence_encoder,
    "fill-mask": _masked_language_model,
    "feature-extraction": _encoder,
}
