# ruff: noqa: E402 - how threads wait is settled before torch is loaded
"""Tokens per second of Rung's engine and of transformers' `generate`: same weights, alternating runs, one process.

The model of the project's figure: 6 layers, hidden 384, 6 heads, context 256, vocabulary 4,096. transformers runs in
every listed way first (precision x cache, and with --compiled also its compiled forward); the best in bfloat16 and the
best of all then alternate with the engine. Its times leave out tokenisation; the engine's include it.

    python bench/generation.py                          # one stream and batch 16, greedy and sampled
    python bench/generation.py --batch 1 --precision int8 --mode greedy
    python bench/generation.py --quality runs/my_texts  # what bf16 and int8 cost in bits, with a trained model
    python bench/generation.py --device cuda --compiled
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from rung.cli.threads import settle_threads

settle_threads()  # as `rung` itself does; it counts before torch is loaded

import torch

from rung.data.tokenizer import Tokenizer, train_tokenizer
from rung.generation.decoding import FusedDecoder
from rung.generation.engine import Engine
from rung.generation.matrices import Precision
from rung.generation.options import SamplingOptions
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.pretrained import load_net, save_net

PROMPT = "It was a fine evening, and the streets of the town were full of people who "
MODES: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0.0}, "sampled": {"temperature": 0.8, "top_p": 0.95}}
WAYS = {"dynamic cache": {}, "static cache": {"cache_implementation": "static"}}


def text_in_the_box() -> str:
    """The novel that comes with the package."""
    with resources.files("rung.assets").joinpath("bleak_house.txt.xz").open("rb") as file:
        return lzma.decompress(file.read()).decode()


def build(device: str) -> tuple[CausalLM, Tokenizer]:
    """A tokenizer of 4,096 tokens from the text in the box, and a network with random weights."""
    tokenizer = train_tokenizer(iter([text_in_the_box()]), kind="bpe", vocab_size=4096)
    config = DecoderConfig(
        vocab_size=4096,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=64,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
    )
    generator = torch.Generator().manual_seed(0)
    net = CausalLM(config, generator=generator)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return net.to(device), tokenizer


def timed(run: Callable[[], int]) -> float:
    """Tokens per second of one run; `run` returns how many tokens it made."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    tokens = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return tokens / (time.perf_counter() - begin)


def rivals(
    folder: Path, ids: torch.Tensor, tokens: int, mode: dict[str, Any], compiled: bool
) -> dict[str, Callable[[], int]]:
    """transformers' `generate` in each way, by name."""
    from transformers import AutoModelForCausalLM

    drawn = {"do_sample": True, "top_k": 0, **mode} if mode["temperature"] else {"do_sample": False}
    found: dict[str, Callable[[], int]] = {}
    for dtype in (torch.bfloat16, torch.float32):
        for way, options in {**WAYS, **({"compiled": WAYS["static cache"]} if compiled else {})}.items():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(ids.device).eval()
            model.generation_config.eos_token_id = None
            if way == "compiled":
                model.forward = torch.compile(model.forward)

            def run(model: Any = model, options: dict[str, Any] = options) -> int:
                output = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=tokens,
                    pad_token_id=0,
                    disable_compile=True,
                    **drawn,
                    **options,
                )
                assert output.shape[1] == ids.shape[1] + tokens
                return tokens * len(ids)

            found[f"{str(dtype).removeprefix('torch.')}, {way}"] = run
    return found


def ours(engine: Engine, batch: int, tokens: int, mode: dict[str, Any]) -> Callable[[], int]:
    """One run of the engine; it must not meet an end-of-text token, so that all make the same number of tokens."""
    options = [SamplingOptions(**mode, max_tokens=tokens, seed=seed) for seed in range(batch)]

    def run() -> int:
        made = [len(generation.token_ids) for generation in engine.generate([PROMPT] * batch, options)]
        assert made == [tokens] * batch
        return sum(made)

    return run


def best(runs: dict[str, Callable[[], int]]) -> tuple[str, str]:
    """The names of the fastest in bfloat16 and of the fastest of all, of three runs each after one to warm up."""
    speed = {}
    for name, run in runs.items():
        run()
        speed[name] = statistics.median(timed(run) for _ in range(3))
        print(f"    transformers {name:32s} {speed[name]:8.0f} tok/s", flush=True)
    return max((n for n in speed if n.startswith("bfloat16")), key=speed.__getitem__), max(speed, key=speed.__getitem__)


@torch.inference_mode()
def quality(folder: Path, windows: int = 32) -> None:
    """Print bits per byte of each precision, token by token through the decoding path, on spots of the text in the box.

    The spots are spread over the text; no more than the difference between precisions is meant to be read from this.
    """
    net, tokenizer, text = load_net(folder), Tokenizer.load(folder), text_in_the_box()
    length = net.config.max_position_embeddings
    spots = [text[len(text) * (2 * i + 1) // (2 * windows) :][: 8 * length] for i in range(windows)]
    rows = [[tokenizer.eos_token_id, *tokenizer.encode(spot)][:length] for spot in spots]
    num_bytes = sum(len(tokenizer.decode_bytes(row)) for row in rows)
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8")
    found = {}
    for precision in precisions:
        decoder, nats = FusedDecoder(net, precision, invariant=False), 0.0
        for row in rows:  # one at a time: int8 has a kernel of its own for one row
            decoder.open(1, length)
            scores = decoder.prefill([row[:1]], 0)
            for place, token in enumerate(row[1:], start=1):
                nats -= scores.log_softmax(-1)[0, token].item()
                scores = decoder.step([token], [place])
        found[precision] = nats / math.log(2) / num_bytes
        print(
            f"  {precision}: {found[precision]:.4f} bits per byte, {found[precision] - found['fp32']:+.4f}", flush=True
        )
    print(json.dumps({"quality": found, "bytes": num_bytes}))


def main() -> None:
    """Print a table of medians and ratios, and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--mode", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compiled", action="store_true", help="also compile transformers' forward (minutes)")
    parser.add_argument("--invariant", action="store_true", help="also price equal bits across batch sizes")
    parser.add_argument("--quality", type=Path, metavar="FOLDER", help="measure precisions on a trained model instead")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quality:
        quality(arguments.quality)
        return
    net, tokenizer = build(arguments.device)
    ids = torch.tensor([tokenizer.encode(PROMPT)], device=arguments.device)
    engines = {precision: Engine(net, tokenizer, precision=precision) for precision in arguments.precision}
    if arguments.invariant:
        engines |= {f"{p} invariant": Engine(net, tokenizer, precision=p, invariant=True) for p in arguments.precision}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        save_net(net, Path(folder))
        for batch in arguments.batch:
            for mode in arguments.mode:
                print(f"batch {batch}, {mode}", flush=True)
                found = rivals(Path(folder), ids.expand(batch, -1), arguments.tokens, MODES[mode], arguments.compiled)
                bfloat16, fastest = best(found)
                runs = {"transformers bf16": found[bfloat16], "transformers best": found[fastest]}
                runs |= {n: ours(e, batch, arguments.tokens, MODES[mode]) for n, e in engines.items()}
                for name in engines:
                    runs[name]()
                speeds: dict[str, list[float]] = {name: [] for name in runs}
                for _ in range(arguments.repeats):
                    for name, run in runs.items():
                        speeds[name].append(timed(run))
                rows.append({"batch": batch, "mode": mode, "transformers": [bfloat16, fastest], **report(speeds)})
    print(json.dumps({"threads": arguments.threads, "device": arguments.device, "rows": rows}))


def report(speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Print and return each way's median tokens per second, and its ratio to both rivals, medians of paired runs."""
    medians = {name: round(statistics.median(values)) for name, values in speeds.items()}
    ratios = {}
    for name, values in speeds.items():
        against = [
            statistics.median(a / b for a, b in zip(values, speeds[rival], strict=True))
            for rival in ("transformers bf16", "transformers best")
        ]
        ratios[name] = [round(ratio, 2) for ratio in against]
        print(
            f"  {name:20s} {medians[name]:8d} tok/s   x{against[0]:.2f} of bf16   x{against[1]:.2f} of best", flush=True
        )
    return {"tokens_per_second": medians, "ratios": ratios}


if __name__ == "__main__":
    main()
