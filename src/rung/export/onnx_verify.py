"""Whether onnxruntime says about an exported ONNX file what Rung says about the run."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rung.data.text_encoder import TOKENIZER, TextEncoder
from rung.export.onnx import longest_text, open_exported
from rung.export.onnx_graph import ATTENTION_MASK, INPUT_IDS, MODEL
from rung.export.readers import Scores, installed
from rung.export.report import Comparison
from rung.export.source import Source
from rung.export.verify import LONGEST, SCORED, SEED, compare_tokens, largest, require_equal, strings
from rung.nets.sentence_folder import body_folder

_BATCHES = (1, 2, 3, 5, 8)  # sizes, one after the other and again
_RANDOM_ROWS = 24
_MOST_TOKENS = 512  # of the longest row


class OnnxReader:
    """onnxruntime and the tokenizers library on an exported folder: all that a program without torch would use.

    A text without any token is `pad_token_id`, as the notes of the export say.
    """

    def __init__(self, folder: Path, pad_token_id: int) -> None:
        runtime, tokenizers = importlib.import_module("onnxruntime"), importlib.import_module("tokenizers")
        self.name = f"onnxruntime {version('onnxruntime')}"
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self._session = runtime.InferenceSession(
            str(folder / MODEL), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
        self._pad_token_id = pad_token_id
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def tokens(self, text: str) -> list[int]:
        """Token ids of `text`, at least one, special tokens around it."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids or [self._pad_token_id]

    def outputs(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> Scores:
        """The output of the file for ids and mask, (batch, time) both."""
        (found,) = self._session.run(None, {INPUT_IDS: ids, ATTENTION_MASK: mask.astype(np.int64)})
        output: Scores = found
        return output


def compare_onnx(source: Source, folder: Path) -> Comparison:
    """Have onnxruntime, where it is installed, compute batches of fixed and random rows, and compare with the run.

    Batches differ in size and length and are padded on the right. Raises EvaluationError when scores are further off
    than float32 explains.
    """
    if not installed("onnxruntime"):
        return Comparison("onnxruntime", remark="not installed: pip install 'rung[onnx]'")
    exported, encoder = open_exported(source), TextEncoder.load(body_folder(source.folder))
    reader = OnnxReader(folder, encoder.pad_token_id)
    same_tokens, tokenised, remark = compare_tokens(lambda text: _tokens(encoder, text), reader.tokens)
    rows = _rows(encoder, exported.vocab_size, longest_text(exported.net, encoder))
    differences, scores, same = [], [], []
    for ids, mask in _batches(rows, encoder.pad_token_id):
        with torch.inference_mode():
            own: Scores = exported.own(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        other = reader.outputs(ids, mask)
        if len(exported.axes) > 1:  # what is said about padding does not count
            own, other = own[mask], other[mask]
        differences.append(np.abs(own - other))
        scores.append(np.abs(own))
        same.append(own.argmax(-1) == other.argmax(-1))
    found = Comparison(
        reader.name,
        largest_difference=largest(differences),
        largest_score=largest(scores),
        same_choice=float(np.concatenate(same).mean()),
        scored=len(rows),
        same_tokens=same_tokens,
        tokenised=tokenised,
        remark=remark,
    )
    require_equal(found, "f32", tokens_too=False)
    return found


def _tokens(encoder: TextEncoder, text: str) -> list[int]:
    return [int(number) for number in encoder.encode([text]).ids]


def _rows(encoder: TextEncoder, vocab_size: int, longest: int | None) -> list[Sequence[int]]:
    """Rows of tokens: of strings, of random tokens, and one of as many random tokens as a text may have."""
    limit, most = min(LONGEST, longest or LONGEST), min(_MOST_TOKENS, longest or _MOST_TOKENS)
    draw = np.random.default_rng(SEED)
    lengths = [*draw.integers(1, limit, size=_RANDOM_ROWS, endpoint=True), most]
    drawn: list[Sequence[int]] = [draw.integers(0, vocab_size, size=length).tolist() for length in lengths]
    return [*(_tokens(encoder, text)[:limit] for text in strings(SCORED)), *drawn]


def _batches(rows: Sequence[Sequence[int]], pad_token_id: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Ids and mask of rows in batches of different sizes, padded to the longest row of each."""
    start = 0
    for size in cycle(_BATCHES):
        batch = rows[start : start + size]
        if not batch:
            return
        lengths = np.array([len(row) for row in batch])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, pad_token_id, np.int64)
        ids[mask] = np.concatenate(batch)
        yield ids, mask
        start += size
