"""What is lost on the way: scores and tokens of exported models, read back by other programs.

    python bench/export.py                   a small decoder, trained here on Bleak House
    python bench/export.py --base smollm2    and other people's weights (a folder, a GGUF file or a name of `rung get`)

Each model goes out as a Hugging Face folder and as a GGUF file in every precision. Every reader that is installed
(transformers, llama.cpp, Rung itself) is asked for all scores of 24 strings and the tokens of 1,000; the figures are
the largest difference from Rung on the original, and as a share of the largest score. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import rung
from rung.export.exporting import Dtype, Format, export_model

ASSET = Path(__file__).resolve().parents[1] / "src" / "rung" / "assets" / "bleak_house.txt.xz"
WAYS: tuple[tuple[Format, Dtype], ...] = (
    ("hf", "f32"),
    ("hf", "bf16"),
    ("gguf", "f32"),
    ("gguf", "f16"),
    ("gguf", "bf16"),
    ("gguf", "q8_0"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", action="append", default=[], help="other people's weights; repeatable")
    parser.add_argument("--steps", type=int, default=100, help="training steps of the small decoder")
    parser.add_argument(
        "--dtype", action="append", choices=["f32", "f16", "bf16", "q8_0"], help="only these; repeatable"
    )
    arguments = parser.parse_args()
    ways = [(to, dtype) for to, dtype in WAYS if not arguments.dtype or dtype in arguments.dtype]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rung.train([ASSET], steps=arguments.steps, out=folder / "small-decoder")
        found = {
            Path(run).name: differences(run, folder, ways) for run in (str(folder / "small-decoder"), *arguments.base)
        }
    print(json.dumps(found))


def differences(run: str, folder: Path, ways: list[tuple[Format, Dtype]]) -> list[dict[str, Any]]:
    """One entry for each format, precision and reader."""
    rows = []
    for to, dtype in ways:
        report = export_model(run, folder / f"{Path(run).name}-{to}-{dtype}", to=to, dtype=dtype)
        for line in report.lines():
            print(line, flush=True)
        rows += [
            {
                "to": to,
                "dtype": dtype,
                "reader": comparison.reader,
                "largest_difference": comparison.largest_difference,
                "relative_difference": comparison.relative_difference,
                "same_choice": comparison.same_choice,
                "same_tokens": comparison.same_tokens,
                "tokenised": comparison.tokenised,
            }
            for comparison in report.comparisons
            if comparison.largest_difference is not None
        ]
    return rows


if __name__ == "__main__":
    main()
