"""Preparing text (read, clean, dedup, split, tokenise, write) against a bare encode_batch over the same text.

    python bench/prepare_text.py                     100 MB, speed: alternating runs, medians
    python bench/prepare_text.py --megabytes 1000 --runs 1      peak memory on a corpus of 1 GB

The corpus is made from paragraphs of the novel in the package (or of the text files given with --source): drawn at
random, one word in eight replaced by another, seeded. 2 % of the documents are repeated exactly. One half is plain
text in files of 8 MB, one is a single large .jsonl. Both sides use the same tokenizer, trained beforehand, and the
same cores; preparing starts from an empty cache each time. Preparing runs in a process of its own, so that its peak
memory is its own (`rung.comparison.peak_memory`), and is timed inside it.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

ASSET = Path(__file__).resolve().parents[1] / "src" / "rung" / "assets" / "bleak_house.txt.xz"
VOCABULARY = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--source", type=Path, nargs="*", default=[ASSET], help=".txt or .jsonl, plain or .xz")
    parser.add_argument("--folder", type=Path, help="keep the corpus here, or use the one that is here")
    parser.add_argument("--only-first-half", action="store_true", help="leave out tokenising and writing")
    parser.add_argument("--prepare", type=Path, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        print(json.dumps(prepare(*arguments.prepare, only_first_half=arguments.only_first_half)))
        return
    with tempfile.TemporaryDirectory(prefix="rung-bench-") as scratch:
        folder = arguments.folder or Path(scratch, "corpus")
        if not folder.exists():
            make_corpus(folder, arguments.source, arguments.megabytes)
        result = compare(folder, Path(scratch), arguments.runs, only_first_half=arguments.only_first_half)
    print(json.dumps(result))


def make_corpus(folder: Path, sources: list[Path], megabytes: int) -> None:
    """Write about `megabytes` (decimal) of perturbed paragraphs into `folder`."""
    paragraphs = [paragraph for source in sources for paragraph in _paragraphs(source)]
    words = sorted({word for paragraph in paragraphs[::7] for word in paragraph.split()})
    rng = random.Random(1)  # noqa: S311 - no secret
    folder.mkdir(parents=True)
    half = megabytes * 500_000
    parts = math.ceil(half / 8_000_000)
    for number in range(parts):
        documents = _documents(paragraphs, words, rng, half // parts)
        Path(folder, f"part-{number:03d}.txt").write_text("\n\n".join(documents), encoding="utf-8")
    with Path(folder, "rows.jsonl").open("w", encoding="utf-8") as rows:
        for document in _documents(paragraphs, words, rng, half):
            rows.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")


def _paragraphs(source: Path) -> Iterator[str]:
    with (
        lzma.open(source, "rt", encoding="utf-8") if source.suffix == ".xz" else source.open(encoding="utf-8") as lines
    ):
        if ".jsonl" in source.suffixes:
            for row in lines:
                yield from (paragraph for paragraph in json.loads(row)["text"].split("\n") if len(paragraph) > 40)
        else:  # wrapped lines without blank ones: ten lines count as a paragraph
            while paragraph := " ".join(line.strip() for line in islice(lines, 10)):
                yield paragraph


def _documents(paragraphs: list[str], words: list[str], rng: random.Random, size: int) -> Iterator[str]:
    """Documents of about 3 kB; one in fifty is given twice."""
    while size > 0:
        parts, length = [], 0
        while length < 3000:
            paragraph = rng.choice(paragraphs).split()
            for place in range(rng.randrange(8), len(paragraph), 8):
                paragraph[place] = rng.choice(words)
            parts.append(" ".join(paragraph))
            length += len(parts[-1])
        document = "\n\n".join(parts)
        for _ in range(1 + (rng.random() < 0.02)):
            yield document
            size -= len(document.encode("utf-8")) + 2


def prepare(folder: Path, cache: Path, tokenizer_folder: Path, *, only_first_half: bool) -> dict[str, float]:
    """Prepare `folder` from an empty cache; seconds, bytes and the peak memory of this process in MiB."""
    from rung.comparison.peak_memory import peak_memory
    from rung.data.corpus import prepare_corpus
    from rung.data.tokenizer import Tokenizer

    if not only_first_half:
        from rung.data.tokenise import tokenise_corpus
    tokenizer = Tokenizer.load(tokenizer_folder)
    started = time.perf_counter()
    corpus = prepare_corpus([folder], cache_dir=cache)
    first_half = time.perf_counter() - started
    if not only_first_half:
        tokenise_corpus(corpus, tokenizer, cache_dir=cache)
    return {
        "seconds": time.perf_counter() - started,
        "first_half_seconds": first_half,
        "bytes": corpus.num_bytes("train") + corpus.num_bytes("valid"),
        "rejected": sum(corpus.report.rejected.values()),
        "peak_mib": peak_memory() / 2**20,
    }


def bare(texts: list[str], tokenizer_folder: Path) -> float:
    """Seconds that encode_batch takes for `texts`, in batches as large as it likes them (1,000)."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    started = time.perf_counter()
    for first in range(0, len(texts), 1000):
        tokenizer.encode_batch(texts[first : first + 1000], add_special_tokens=False)
    return time.perf_counter() - started


def compare(folder: Path, scratch: Path, runs: int, *, only_first_half: bool) -> dict[str, object]:
    from rung.data.corpus import prepare_corpus
    from rung.data.tokenizer import train_tokenizer

    cache, tokenizer_folder = scratch / "cache", scratch / "tokenizer"
    corpus = prepare_corpus([folder], cache_dir=cache)
    print("\n".join(corpus.report.lines()))
    tokenizer_folder.mkdir()
    train_tokenizer(corpus.texts("train", max_bytes=10_000_000), vocab_size=VOCABULARY).save(tokenizer_folder)
    texts = list(corpus.texts("train", max_bytes=100_000_000))  # a part is enough for a rate
    bare_bytes = sum(len(text.encode("utf-8")) for text in texts)
    prepared, encoded = [], []
    for _ in range(runs):
        encoded.append(bare_bytes / 1e6 / bare(texts, tokenizer_folder))
        shutil.rmtree(cache, ignore_errors=True)
        command = [sys.executable, __file__, "--prepare", str(folder), str(cache), str(tokenizer_folder)]
        if only_first_half:
            command.append("--only-first-half")
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        prepared.append(json.loads(done.stdout.splitlines()[-1]))
        rate = prepared[-1]["bytes"] / 1e6 / prepared[-1]["seconds"]
        first = prepared[-1]["bytes"] / 1e6 / prepared[-1]["first_half_seconds"]
        print(
            f"encode_batch {encoded[-1]:6.1f} MB/s   prepare {rate:6.1f} MB/s ({rate / encoded[-1]:.2f}x; "
            f"up to the split {first:.1f} MB/s)   peak {prepared[-1]['peak_mib']:.0f} MiB"
        )
    rates = [run["bytes"] / 1e6 / run["seconds"] for run in prepared]
    return {
        "bench": "prepare_text",
        "megabytes": prepared[0]["bytes"] / 1e6,
        "cores": len(os.sched_getaffinity(0)),
        "encode_batch_mb_per_s": round(statistics.median(encoded), 2),
        "prepare_mb_per_s": round(statistics.median(rates), 2),
        "ratio": round(statistics.median(rate / base for rate, base in zip(rates, encoded, strict=True)), 3),
        "up_to_split_mb_per_s": round(
            statistics.median(run["bytes"] / 1e6 / run["first_half_seconds"] for run in prepared), 2
        ),
        "peak_mib": round(max(run["peak_mib"] for run in prepared)),
    }


if __name__ == "__main__":
    main()
