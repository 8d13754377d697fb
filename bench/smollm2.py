"""SmolLM2-135M read and written by Rung's engine and by transformers: same weights, alternating runs, one process.

Prompt processing is one pass over the prompt up to the scores of its last token; decoding is greedy, after a prompt of
a few tokens. transformers runs in bfloat16, decoding with each of its caches first; the faster one then alternates with
the engine. Without the package that carries the real weights, random ones of the same shape are measured.

    python bench/smollm2.py
    python bench/smollm2.py --prompt 128 512 2048 --tokens 128 --threads 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `rung` itself does; it counts before torch is loaded

import torch

from rung.errors import RungError
from rung.generation.decoding import FusedDecoder
from rung.generation.matrices import Precision
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.pretrained import load_net, save_net
from rung.tasks.bases import resolve_base

SHAPE = DecoderConfig(
    model_type="llama",
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    max_position_embeddings=8192,
    rope_theta=100_000.0,
)
CACHES: dict[str, dict[str, Any]] = {"dynamic cache": {}, "static cache": {"cache_implementation": "static"}}
FEW_TOKENS = 16
PRECISIONS: tuple[Precision, ...] = ("bf16", "int8")


def weights() -> tuple[Any, str]:
    """The network in float32, and what it is."""
    try:
        return load_net(resolve_base("smollm2")), "SmolLM2-135M-Instruct"
    except RungError as error:
        print(f"random weights of SmolLM2's shape: {error.problem}")
        return CausalLM(SHAPE, generator=torch.Generator().manual_seed(0)), "random"


def timed(run: Callable[[], int]) -> float:
    """Tokens per second of one run; `run` returns how many tokens it read or wrote."""
    begin = time.perf_counter()
    tokens = run()
    return tokens / (time.perf_counter() - begin)


def compare(runs: dict[str, Callable[[], int]], rounds: int) -> dict[str, Any]:
    """Print and return each way's median tokens per second and its ratio to the first way, of alternating runs."""
    for run in runs.values():
        run()
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            speeds[name].append(timed(run))
    rival = speeds[next(iter(runs))]
    found = {}
    for name, values in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(values, rival, strict=True))
        found[name] = {"tokens_per_second": round(statistics.median(values), 1), "ratio": round(ratio, 2)}
        print(f"    {name:32s} {found[name]['tokens_per_second']:9.1f} tok/s   x{ratio:.2f}", flush=True)
    return found


def their_reading(theirs: Any, ids: torch.Tensor) -> Callable[[], int]:
    """One pass with a cache, the last token's scores only: what `generate` does first."""

    def run() -> int:
        with torch.inference_mode():
            theirs(ids, use_cache=True, logits_to_keep=1)
        return ids.shape[1]

    return run


def our_reading(decoder: FusedDecoder, ids: torch.Tensor, tokens: int) -> Callable[[], int]:
    """The same."""
    prompt = ids[0].tolist()

    def run() -> int:
        with torch.inference_mode():
            decoder.open(1, len(prompt) + tokens)
            decoder.prefill([prompt], 0)
        return len(prompt)

    return run


def their_writing(theirs: Any, ids: torch.Tensor, tokens: int, options: dict[str, Any]) -> Callable[[], int]:
    """Greedy `generate`, end-of-text tokens ignored."""

    def run() -> int:
        output = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
            disable_compile=True,
            **options,
        )
        assert output.shape[1] == ids.shape[1] + tokens
        return tokens

    return run


def our_writing(decoder: FusedDecoder, ids: torch.Tensor, tokens: int) -> Callable[[], int]:
    """The likeliest token again and again, end-of-text tokens ignored."""
    prompt = ids[0].tolist()

    def run() -> int:
        with torch.inference_mode():
            decoder.open(1, len(prompt) + tokens)
            scores = decoder.prefill([prompt], 0)
            for place in range(len(prompt), len(prompt) + tokens - 1):
                scores = decoder.step([int(scores.argmax())], [place])
        return tokens

    return run


def main() -> None:
    """Print tables and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from transformers import AutoModelForCausalLM

    net, name = weights()
    with tempfile.TemporaryDirectory() as folder:
        save_net(net, Path(folder), dtype=torch.bfloat16)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    theirs.generation_config.eos_token_id = None
    ours = {precision: FusedDecoder(net, precision, invariant=False) for precision in PRECISIONS}
    drawn = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {"model": name, "threads": arguments.threads, "reading": {}}
    for length in arguments.prompt:
        ids = torch.randint(0, net.config.vocab_size, (1, length), generator=drawn)
        runs = {"transformers bf16": their_reading(theirs, ids)}
        runs |= {f"rung {p}": our_reading(decoder, ids, arguments.tokens) for p, decoder in ours.items()}
        print(f"  reading a prompt of {length} tokens", flush=True)
        found["reading"][length] = compare(runs, arguments.rounds)
    ids = torch.randint(0, net.config.vocab_size, (1, FEW_TOKENS), generator=drawn)
    ways = {cache: their_writing(theirs, ids, arguments.tokens, options) for cache, options in CACHES.items()}
    print("  transformers' caches", flush=True)
    speeds = compare(ways, 2)
    fastest = max(speeds, key=lambda way: speeds[way]["tokens_per_second"])
    runs = {f"transformers bf16, {fastest}": ways[fastest]}
    runs |= {f"rung {p}": our_writing(decoder, ids, arguments.tokens) for p, decoder in ours.items()}
    print(f"  writing {arguments.tokens} tokens", flush=True)
    found["writing"] = compare(runs, arguments.rounds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
