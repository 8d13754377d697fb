# ruff: noqa: E402 - how threads wait is settled before torch is loaded
"""SmolLM2-135M read and written by Rung's engine, transformers and llama.cpp: one file, alternating runs, one process.

Prompt processing is one pass over the prompt up to the scores of its last token; decoding is greedy, after a prompt of
a few tokens. transformers runs in bfloat16, decoding with each of its caches first; the faster one then alternates with
the others. llama.cpp multiplies by the 4-bit weights of the file (Q4_1) as they are, the two others by the same weights
unpacked to bfloat16, or 8 bits: less memory to read for each token, more work for each product. Last, a conversation:
how long the first token of each answer takes when earlier turns are kept, and when they are read again.

Without the package that carries the real weights, random ones of the same shape are measured, beside transformers only.

    python bench/smollm2.py
    python bench/smollm2.py --prompt 1024 2000 --tokens 128 --threads 1
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from rung.cli.threads import settle_threads

settle_threads()  # as `rung` itself does; it counts before torch is loaded

import torch

from rung.errors import RungError
from rung.generation.decoding import FusedDecoder
from rung.generation.matrices import Precision
from rung.generation.options import SamplingOptions
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.pretrained import load_net, save_net
from rung.tasks.bases import resolve_base
from rung.tasks.chat.session import ChatSession
from rung.tasks.language_model import load as load_model

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
LLAMA_CPP = "llama.cpp Q4_1"
TRY_LLAMA_CPP = "import sys, llama_cpp; llama_cpp.Llama(sys.argv[1], n_ctx=64, verbose=False).eval([1, 2, 3])"
QUESTIONS = (
    "I would like to visit Norway in autumn. Which three places should I see, and why these?",
    "Which of the three is the best one for a family with two small children?",
    "How do we get there from Oslo without a car?",
    "What should we pack for a week there in October?",
    "Please write the packing list again, but shorter.",
    "What do people eat there? Name a dish that children like.",
    "How do I say 'thank you' and 'where is the station' in Norwegian?",
    "It may rain all week. What can we do indoors?",
    "What will all this cost, roughly, for four people?",
    "Sum up the plan in two sentences.",
)
ANSWER_TOKENS = 64


def base() -> Path | None:
    """The folder of the real weights."""
    try:
        return resolve_base("smollm2")
    except RungError as error:
        print(f"random weights of SmolLM2's shape, without llama.cpp and a conversation: {error.problem}")
        return None


def llama_cpp(folder: Path | None, threads: int, context: int) -> Any:
    """The same file in llama.cpp, or None.

    Its kernels for AMX crash on some machines (ggml-org/llama.cpp issue 20824), so a process of its own tries them.
    """
    if folder is None:
        return None
    try:
        package = importlib.import_module("llama_cpp")
    except ImportError:
        print("llama.cpp is not measured: llama-cpp-python is not installed")
        return None
    file = str(folder / "model.gguf")
    tried = subprocess.run([sys.executable, "-c", TRY_LLAMA_CPP, file], capture_output=True, check=False)
    kernels = "all its kernels"
    if tried.returncode != 0:
        usual = package.llama_cpp.llama_model_default_params

        def careful() -> Any:
            parameters = usual()
            parameters.use_extra_bufts = False
            return parameters

        package.llama_cpp.llama_model_default_params = careful
        kernels = "without its kernels for repacked weights (AMX among them), which crash on this machine"
    print(f"  llama-cpp-python {package.__version__}: the file's own 4-bit weights (Q4_1), {kernels}", flush=True)
    return package.Llama(
        file, n_ctx=context, n_batch=context, n_threads=threads, n_threads_batch=threads, verbose=False
    )


def timed(run: Callable[[], int]) -> float:
    """Tokens per second of one run; `run` returns how many tokens it read or wrote."""
    begin = time.perf_counter()
    tokens = run()
    return tokens / (time.perf_counter() - begin)


def compare(runs: dict[str, Callable[[], int]], rounds: int) -> dict[str, Any]:
    """Print and return each way's median tokens per second, of alternating runs, and its ratios.

    They are medians of the rounds' ratios to the first way, and to llama.cpp where it is among the ways.
    """
    for run in runs.values():
        run()
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            speeds[name].append(timed(run))
    rivals = {"ratio": next(iter(runs))} | ({"to_llama_cpp": LLAMA_CPP} if LLAMA_CPP in runs else {})
    found: dict[str, Any] = {}
    for name, values in speeds.items():
        found[name] = {"tokens_per_second": round(statistics.median(values), 1)}
        for ratio, rival in rivals.items():
            pairs = zip(values, speeds[rival], strict=True)
            found[name][ratio] = round(statistics.median(mine / its for mine, its in pairs), 2)
        ratios = "   ".join(f"x{found[name][ratio]:.2f} of {rival.split()[0]}" for ratio, rival in rivals.items())
        print(f"    {name:32s} {found[name]['tokens_per_second']:9.1f} tok/s   {ratios}", flush=True)
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


def llama_reading(llama: Any, ids: torch.Tensor) -> Callable[[], int]:
    """The same."""
    prompt = ids[0].tolist()

    def run() -> int:
        llama.reset()
        llama.eval(prompt)
        return len(prompt)

    return run


def llama_writing(llama: Any, ids: torch.Tensor, tokens: int) -> Callable[[], int]:
    """The same; its generator knows no end-of-text tokens."""
    prompt = ids[0].tolist()

    def run() -> int:
        llama.reset()
        return len(list(islice(llama.generate(prompt, temp=0.0, repeat_penalty=1.0), tokens)))

    return run


def conversation(folder: Path) -> dict[str, Any]:
    """Print and return the seconds to the first token of each turn, with earlier turns read again and kept."""
    talker = load_model(folder, precision="bf16").talker
    session = ChatSession(talker, SamplingOptions(temperature=0, max_tokens=ANSWER_TOKENS))
    list(session.ask("Hello").stream())  # to warm up; not kept as a message
    seconds: dict[str, list[float]] = {"read_again": [], "kept": []}
    lengths = []
    for question in QUESTIONS:
        asked = session.ask(question)
        for name, prefixes in (("read_again", None), ("kept", session.prefixes)):
            began = time.perf_counter()
            stream = talker.stream(asked.prompt, asked.options, prefixes)
            first = next(stream)
            seconds[name].append(round(time.perf_counter() - began, 4))
        asked.pieces = [first, *stream]
        asked.keep()
        lengths.append(len(asked.prompt.token_ids))
        latest = "   ".join(f"{name} {values[-1]:.3f} s" for name, values in seconds.items())
        print(f"    {lengths[-1]:5d} tokens   {latest}", flush=True)
    totals = {name: round(sum(values), 3) for name, values in seconds.items()}
    print(f"    all turns: {totals}", flush=True)
    return {"prompt_tokens": lengths, "seconds_to_first_token": seconds, "sum": totals}


def main() -> None:
    """Print tables and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, nargs="+", default=[16, 128, 512])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["reading", "writing", "conversation"], help="a part of it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = base()
    found: dict[str, Any] = {
        "model": "random" if folder is None else "SmolLM2-135M-Instruct",
        "weights": {"transformers": "bf16", "rung": list(PRECISIONS), "llama.cpp": "the file's Q4_1"},
        "threads": arguments.threads,
    }
    if arguments.only != "conversation":
        found |= side_by_side(folder, arguments)
    if folder is not None and arguments.only in (None, "conversation"):
        print(f"  a conversation of {len(QUESTIONS)} turns, seconds to the first token of the answer", flush=True)
        found["conversation"] = conversation(folder)
    print(json.dumps(found))


def side_by_side(folder: Path | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Print and return how fast prompts are read and texts written."""
    from transformers import AutoModelForCausalLM

    net = CausalLM(SHAPE, generator=torch.Generator().manual_seed(0)) if folder is None else load_net(folder)
    with tempfile.TemporaryDirectory() as saved:
        save_net(net, Path(saved), dtype=torch.bfloat16)
        theirs = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.bfloat16).eval()
    theirs.generation_config.eos_token_id = None
    ours = {precision: FusedDecoder(net, precision, invariant=False) for precision in PRECISIONS}
    llama = llama_cpp(folder, arguments.threads, max(arguments.prompt) + arguments.tokens + FEW_TOKENS)
    drawn = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {}
    for length in arguments.prompt if arguments.only != "writing" else ():
        ids = torch.randint(0, net.config.vocab_size, (1, length), generator=drawn)
        runs = {"transformers bf16": their_reading(theirs, ids)}
        runs |= {f"rung {p}": our_reading(decoder, ids, arguments.tokens) for p, decoder in ours.items()}
        runs |= {LLAMA_CPP: llama_reading(llama, ids)} if llama is not None else {}
        print(f"  reading a prompt of {length} tokens", flush=True)
        found.setdefault("reading", {})[length] = compare(runs, arguments.rounds)
    if arguments.only == "reading":
        return found
    ids = torch.randint(0, net.config.vocab_size, (1, FEW_TOKENS), generator=drawn)
    ways = {cache: their_writing(theirs, ids, arguments.tokens, options) for cache, options in CACHES.items()}
    print("  transformers' caches", flush=True)
    speeds = compare(ways, 2)
    fastest = max(speeds, key=lambda way: speeds[way]["tokens_per_second"])
    runs = {f"transformers bf16, {fastest}": ways[fastest]}
    runs |= {f"rung {p}": our_writing(decoder, ids, arguments.tokens) for p, decoder in ours.items()}
    runs |= {LLAMA_CPP: llama_writing(llama, ids, arguments.tokens)} if llama is not None else {}
    print(f"  writing {arguments.tokens} tokens", flush=True)
    found["writing"] = compare(runs, arguments.rounds)
    return found


if __name__ == "__main__":
    main()
