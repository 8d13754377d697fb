"""Sentence embeddings by Rung and by sentence-transformers, from the same folder on the same sentences.

    python bench/sentence_embedding.py FOLDER [SENTENCES.txt] [--sentences 512] [--rounds 5] [--threads 2]

FOLDER is one of sentence-transformers (or a name that `rung get` knows, as minilm). Runs alternate in one process; the
ratio is that of median times. Without a file, sentences of 4 to 40 words are made up. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import sentence_transformers
import torch

from rung.tasks.bases import resolve_base
from rung.tasks.similarity.encoder import BATCH_SIZE, load_sentence_encoder

_WORDS = ("the", "a", "of", "in", "people", "city", "river", "music", "runs", "sees", "old", "new", "green", "never")


def sentences(count: int, file: Path | None) -> list[str]:
    """`count` sentences, spread evenly over a file, or made up."""
    if file is None:
        draw = np.random.default_rng(0)
        return [" ".join(draw.choice(_WORDS, size=draw.integers(4, 40))) for _ in range(count)]
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [lines[place] for place in np.linspace(0, len(lines) - 1, min(count, len(lines))).astype(int)]


def main() -> None:
    """Time both and compare their vectors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--sentences", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    texts = sentences(given.sentences, given.file)
    ours = load_sentence_encoder(given.folder)
    theirs = sentence_transformers.SentenceTransformer(str(resolve_base(given.folder)), device="cpu")
    ways = {
        "rung": lambda: ours.embeddings(texts).vectors,
        "sentence_transformers": lambda: theirs.encode(texts, batch_size=BATCH_SIZE, show_progress_bar=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    vectors = {name: way() for name, way in ways.items()}  # the first run of each is not timed
    for _ in range(given.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    first, second = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors.values())
    cosines = (first * second).sum(1)
    result = {
        "sentences": len(texts),
        "threads": given.threads,
        **{f"{name}_per_second": round(len(texts) / median(times), 1) for name, times in seconds.items()},
        "ratio": round(median(seconds["sentence_transformers"]) / median(seconds["rung"]), 3),
        "smallest_cosine": float(cosines.min()),
    }
    for name, times in seconds.items():
        print(f"{name:>22}: {len(texts) / median(times):7.1f} sentences/s (median of {given.rounds})")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
