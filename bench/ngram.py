"""Kneser-Ney n-gram models: counting and scoring against nltk, and bits per byte by order on held-out novels.

    python bench/ngram.py                                        against nltk, alternating runs, medians
    python bench/ngram.py --train T.jsonl.xz --valid V.jsonl.xz  bits per byte, seconds and memory of orders 1 to 5 too

nltk's `KneserNeyInterpolated` is the peer that installs from PyPI. It has one fixed discount where modified Kneser-Ney
estimates three an order, so only speed is compared: the same words, the same order, all n-grams kept. KenLM's estimator
(lmplz) is a program of its own that PyPI does not have; that KenLM's reader gives the same probabilities is a test.
"""

from __future__ import annotations

import argparse
import json
import lzma
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rung.comparison.peak_memory import peak_memory
from rung.evaluation.bits_per_byte import bits_per_byte
from rung.progress import SILENT
from rung.recipe import Recipe
from rung.tasks.text_preparation import prepare_text
from rung.training.ngram.kneser_ney import estimate

ASSET = Path(__file__).resolve().parents[1] / "src" / "rung" / "assets" / "bleak_house.txt.xz"
ORDER = 3
COUNTED_WORDS = 50_000
SCORED_WORDS = {"ours": 50_000, "nltk": 20}  # nltk sums over all n-grams again for every word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--train", type=Path, help="text to count, as rung train takes it")
    parser.add_argument("--valid", type=Path, help="text to measure on")
    parser.add_argument("--tokens", default="bpe", choices=["bpe", "word", "character", "byte"])
    parser.add_argument("--vocab-size", type=int)
    parser.add_argument("--orders", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    arguments = parser.parse_args()
    result: dict[str, Any] = against_nltk(arguments.runs)
    if arguments.train and arguments.valid:
        result["by_order"] = by_order(
            arguments.train, arguments.valid, arguments.tokens, arguments.vocab_size, arguments.orders
        )
    print(json.dumps(result))


def against_nltk(runs: int) -> dict[str, Any]:
    """Words per second of counting and of scoring, ours over theirs."""
    with lzma.open(ASSET, "rt", encoding="utf-8") as file:
        words = file.read().split()
    counted, scored = words[:COUNTED_WORDS], words[COUNTED_WORDS:]
    rates: dict[str, list[float]] = {"ours_count": [], "nltk_count": [], "ours_score": [], "nltk_score": []}
    for _ in range(runs):
        for name, side in (("ours", _ours), ("nltk", _nltk)):
            count_seconds, score_seconds = side(counted, scored[: SCORED_WORDS[name]])
            rates[f"{name}_count"].append(COUNTED_WORDS / count_seconds)
            rates[f"{name}_score"].append(SCORED_WORDS[name] / score_seconds)
    words_per_second = {name: statistics.median(values) for name, values in rates.items()}
    result: dict[str, Any] = {"order": ORDER, "words_per_second": words_per_second}
    for part in ("count", "score"):
        ours, theirs = words_per_second[f"ours_{part}"], words_per_second[f"nltk_{part}"]
        result[f"{part}_ratio"] = round(ours / theirs, 1)
        print(f"{part}: {ours:,.0f} words/s here, {theirs:,.1f} in nltk: {ours / theirs:,.1f} times")
    return result


def _ours(counted: Sequence[str], scored: Sequence[str]) -> tuple[float, float]:
    """Seconds to number and count the words, and to score the others."""

    def count() -> Any:
        ids: dict[str, int] = {"": 0}
        stream = np.array([0, *(ids.setdefault(word, len(ids)) for word in counted), 0], dtype=np.uint32)
        return ids, estimate(stream, order=ORDER, vocab_size=len(ids) + 1, eos_token_id=0).model

    (ids, model), count_seconds = _timed(count)

    def score() -> Any:
        tokens = np.array([[ids.get(word, len(ids)) for word in scored]])
        return model.logprobs(tokens[:, :-1], tokens[:, 1:])

    return count_seconds, _timed(score)[1]


def _nltk(counted: Sequence[str], scored: Sequence[str]) -> tuple[float, float]:
    from nltk.lm import KneserNeyInterpolated
    from nltk.lm.preprocessing import padded_everygram_pipeline

    def count() -> Any:
        model = KneserNeyInterpolated(ORDER)
        model.fit(*padded_everygram_pipeline(ORDER, [counted]))
        return model

    model, count_seconds = _timed(count)

    def score() -> list[float]:
        places = range(ORDER - 1, len(scored))
        return [model.score(scored[place], scored[place - ORDER + 1 : place]) for place in places]

    return count_seconds, _timed(score)[1]


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


def by_order(
    train: Path, valid: Path, kind: str, vocab_size: int | None, orders: Sequence[int]
) -> list[dict[str, Any]]:
    """Bits per byte of the validation text, n-grams, seconds (wall and CPU) and peak memory so far, order by order."""
    wanted = {
        "text.files": [str(train)],
        "text.valid": [str(valid)],
        "tokenizer.kind": kind,
        "tokenizer.vocab_size": vocab_size,
    }
    text = prepare_text(Recipe().with_overrides(wanted), SILENT)
    stream = np.concatenate([[text.train.eos_token_id], text.train.read(0, text.train.num_tokens)])
    stream = stream.astype(text.train.dtype)
    rows = []
    for order in orders:
        cpu = time.process_time()
        made, seconds = _timed(
            lambda order=order: estimate(
                stream, order=order, vocab_size=text.tokenizer.vocab_size, eos_token_id=text.tokenizer.eos_token_id
            )
        )
        cpu = time.process_time() - cpu
        record, _ = bits_per_byte(made.model, text.valid)
        peak = peak_memory() / 2**30
        rows.append(
            {
                "order": order,
                "bits_per_byte": round(record.value or 0.0, 4),
                "tokens": len(stream),
                "ngrams": sum(made.model.config.num_ngrams),
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu, 1),
                "peak_gib": round(peak, 2),
            }
        )
        print(rows[-1])
    return rows


if __name__ == "__main__":
    main()
