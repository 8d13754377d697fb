"""An invented ladder of language models, for tests of what is told about it."""

from __future__ import annotations

import numpy as np

from rung.comparison.language_models.curves import crossing_sentences
from rung.comparison.language_models.result import (
    CurvePoint,
    Fit,
    LanguageLadder,
    LanguageRungResult,
    Sample,
)
from rung.comparison.language_models.verdict import judge
from rung.records import Interval, ItemScores, Record


def curve(*values: float) -> list[CurvePoint]:
    """Validations every ten seconds."""
    return [
        CurvePoint(seconds=10.0 * (at + 1), text_bytes=100.0 * (at + 1), bits_per_byte=value)
        for at, value in enumerate(values)
    ]


def scores(bits_per_byte: float, *, seed: int = 0, spread: float = 0.05, documents: int = 300) -> ItemScores:
    """Bits and bytes of documents that are hard or easy for every model alike."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(500, 4000, documents).astype(float)
    noise = np.random.default_rng(seed + 7).normal(0, spread, documents)
    hardness = generator.normal(0, 0.3, documents)
    return ItemScores([f"d{n}" for n in range(documents)], sizes * (bits_per_byte + hardness + noise), sizes)


def _record(name: str, value: float, unit: str, spread: float = 0.0) -> Record:
    interval = Interval(low=value - spread, high=value + spread, method="bootstrap") if spread else None
    return Record(name=name, value=value, unit=unit, n=100, interval=interval)


def _rung(name: str, height: int, bits: float, points: list[CurvePoint]) -> LanguageRungResult:
    record = _record("bits_per_byte", bits, "bits per byte", 0.02)
    return LanguageRungResult(
        name=name,
        description="<script>alert(1)</script>",
        height=height,
        finished=True,
        folder=f"rungs/{name}",
        shape={"hidden_size": 128},
        fits=[Fit(seed=0, folder=f"rungs/{name}", bits_per_byte=record, valid_bits_per_byte=bits, curve=points)],
        metrics=[
            record,
            _record("mean_bits_per_byte", bits, "bits per byte"),
            _record("parameters", 1_234_567, "parameters"),
            _record("bytes_on_disk", 5e6, "bytes"),
            _record("train_seconds", 61.0, "s"),
            _record("text_read", 2.5e6, "bytes"),
            _record("training_bytes_per_second", 4e4, "bytes/s"),
            _record("generation_characters_per_second", 812.0, "characters/s"),
            Record(name="energy", value=None, unit="J", n=0, not_measured="no counter"),
        ],
        samples=[Sample(prompt="It was", text=" a dark & stormy <b>night</b>")],
    )


def example_ladder() -> LanguageLadder:
    """Three rungs measured, a fourth left out; its words try to break out of the page."""
    left_out = LanguageRungResult(
        name="decoder", description="a Transformer", height=8, finished=False, note="only 3 steps fit"
    )
    test = {"ngram": [scores(2.0)], "rnn": [scores(1.8, seed=1)], "lstm": [scores(1.7, seed=2)]}
    pairs, verdict = judge(test, {"ngram": [2.0], "rnn": [1.8], "lstm": [1.7]}, margin=0.02)
    curves = {"ngram": curve(2.0)[:1], "rnn": curve(2.6, 2.1, 1.8), "lstm": curve(2.8, 2.0, 1.7)}
    heights = {"ngram": 1, "rnn": 5, "lstm": 5}
    rungs = [_rung(name, heights[name], test[name][0].mean, points) for name, points in curves.items()]
    return LanguageLadder(
        rung_version="0",
        command="rung compare <texts> --minutes 1",
        created="2026-01-01T00:00:00+00:00",
        seconds=60.0,
        machine="m",
        settings={"minutes": 1.0, "steps": None, "parameters": None, "tokenizer": "bpe", "margin": 0.02, "seed": 0},
        text={
            "files": ["a.txt"],
            "sha256": "0" * 64,
            "parts": {"train": {"documents": 9, "bytes": 9000}},
            "measured_bytes": 1000,
        },
        rungs=[*rungs, left_out],
        floors=[_record("gzip -9", 3.0, "bits per byte"), _record("xz -9e", 2.1, "bits per byte")],
        pairs=pairs,
        crossings=crossing_sentences(list(curves.items())),
        verdict=verdict,
    )
