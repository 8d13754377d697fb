"""LoRA: step time, memory and trainable share, against tuning all weights and against peft on the same base.

    python bench/lora.py                      # a random base of SmolLM2's width, six layers
    python bench/lora.py --base smollm2       # the real one, all thirty layers (minutes)

Ours and peft's adapters lie on the same base with the same weights and learn from the same rows in alternating runs in
one process; every figure is a median. peft runs in whichever of its own ways is fastest here. Memory is the peak of a
process of its own that does nothing else, less what it holds after its imports.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rung.comparison.peak_memory import peak_memory
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.language_models import load_language_model, save_language_model
from rung.nets.lora import LoraConfig
from rung.objectives.next_token import NextToken
from rung.tasks.bases import resolve_base
from rung.tasks.tuning.method import TuningMethod, apply_method
from rung.training.optimizers import build_optimizer
from rung.training.precision import tune_allocator

RANK, ALPHA = 8, 16.0
# SmolLM2-135M's shape (30 layers there) with a smaller vocabulary.
SHAPE = DecoderConfig(
    model_type="llama",
    vocab_size=8192,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=6,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    max_position_embeddings=2048,
    rope_theta=100_000.0,
)
Step = Callable[[], float]


def ours(base: Path, method: TuningMethod, dtype: torch.dtype, batch: dict[str, torch.Tensor]) -> tuple[Step, float]:
    """One training step of ours, and the share of parameters that it trains."""
    net = load_language_model(base)
    whole = net.config.num_parameters
    net.compute_dtype = dtype
    apply_method(net, method, seed=0)
    net.train()
    optimizer = build_optimizer(net, name="adamw", learning_rate=1e-4)
    objective = NextToken()

    def step() -> float:
        optimizer.zero_grad()
        loss = objective(net, batch)
        (loss.total / loss.count).backward()
        optimizer.step(1.0)
        return float(loss.total.detach() / loss.count)

    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return step, trained / (whole + trained * (method.kind == "lora"))


def theirs(base: Path, way: str, batch: dict[str, torch.Tensor]) -> tuple[Step, float]:
    """One training step of transformers: `way` is full or lora, and fp32, autocast or bf16."""
    import peft
    import transformers

    kind, _, precision = way.partition("-")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if precision.startswith("bf16"):
        model = model.to(torch.bfloat16)
    if kind == "lora":
        config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, config, autocast_adapter_dtype=precision != "bf16adapters")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    model.train()
    labels = torch.cat([batch["input_ids"][:, :1], batch["labels"][:, :-1]], dim=1)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            loss = model(input_ids=batch["input_ids"], labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step, sum(p.numel() for p in trained) / sum(p.numel() for p in model.parameters())


def contestant(name: str, base: Path, batch: dict[str, torch.Tensor]) -> tuple[Step, float]:
    """A training step by its name."""
    whose, _, way = name.partition(" ")
    if whose == "peft":
        return theirs(base, way, batch)
    kind, _, precision = way.partition("-")
    if kind == "full":
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        return ours(base, TuningMethod("full"), dtype, batch)
    computing, _, stored = precision.partition("-")
    dtype = torch.float32 if computing == "fp32" else torch.bfloat16
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, use_dora=kind == "dora")
    return ours(base, TuningMethod("lora", config, base_precision=stored or "fp32"), dtype, batch)  # type: ignore[arg-type]


NAMES = (
    "ours full-fp32",
    "ours full-bf16",
    "ours lora-fp32",
    "ours lora-bf16-fp32",
    "ours lora-bf16-bf16",
    "ours lora-bf16-int8",
    "ours lora-bf16-int4",
    "ours dora-bf16-bf16",
    "peft lora-fp32",
    "peft lora-autocast",
    "peft lora-bf16",
    "peft lora-bf16adapters",
)


def rows_of(vocab_size: int, rows: int, context: int) -> dict[str, torch.Tensor]:
    """The same random rows for everyone."""
    tokens = torch.randint(vocab_size, (rows, context + 1), generator=torch.Generator().manual_seed(0))
    return {"input_ids": tokens[:, :-1].contiguous(), "labels": tokens[:, 1:].contiguous()}


def peak_megabytes(arguments: argparse.Namespace, base: Path, name: str) -> float:
    """The peak memory of a process that takes two steps, less what it holds before the base is loaded."""
    command = [sys.executable, __file__, "--only", name, "--folder", str(base)]
    command += ["--rows", str(arguments.rows), "--context", str(arguments.context), "--threads", str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def report_peak(arguments: argparse.Namespace) -> None:
    """The measuring process of `peak_megabytes`."""
    if arguments.only.startswith("peft"):
        import peft  # noqa: F401
    before = peak_memory()
    batch = rows_of(load_language_model(Path(arguments.folder)).config.vocab_size, arguments.rows, arguments.context)
    gc.collect()
    step, _ = contestant(arguments.only, Path(arguments.folder), batch)
    for _ in range(2):
        step()
    print((peak_memory() - before) / 2**20)


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="what rung tune takes as BASE; default: a random one")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--names", help="which, by comma; default: all")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    tune_allocator()
    torch.set_num_threads(arguments.threads)
    if arguments.only:
        report_peak(arguments)
        return
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch, "base")
        net = load_language_model(resolve_base(arguments.base)) if arguments.base else random_base()
        save_language_model(net, base)  # safetensors, which transformers opens too
        del net
        names = arguments.names.split(",") if arguments.names else list(NAMES)
        batch = rows_of(load_language_model(base).config.vocab_size, arguments.rows, arguments.context)
        found = timed(names, base, batch, arguments.repeats)
        if not arguments.no_memory:
            for name in names:
                found[name]["peak_mb"] = round(peak_megabytes(arguments, base, name), 1)
    show(found)


def random_base() -> CausalLM:
    """A base whose matrices are all drawn: ours begin with some at zero."""
    net = CausalLM(SHAPE, generator=torch.Generator().manual_seed(0))
    for parameter in net.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.02)
    return net


def timed(names: list[str], base: Path, batch: dict[str, torch.Tensor], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds a step of each, taken in turns, and the share of parameters that it trains."""
    steps: dict[str, Step] = {}
    found: dict[str, dict[str, float]] = {}
    for name in names:
        steps[name], share = contestant(name, base, batch)
        found[name] = {"trained_share": round(share, 5), "first_loss": round(steps[name](), 4)}
        steps[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    for name in names:
        found[name]["seconds"] = round(statistics.median(seconds[name]), 4)
    return found


def show(found: dict[str, dict[str, float]]) -> None:
    """A table, and ratios against the fastest of peft's ways and against tuning all weights."""
    for name, figures in found.items():
        print(f"{name:26}", "  ".join(f"{key} {value:g}" for key, value in figures.items()))
    result: dict[str, Any] = {"figures": found, "threads": torch.get_num_threads()}
    for precision, group in (("fp32", ("fp32",)), ("bf16", ("autocast", "bf16", "bf16adapters"))):
        their = [found[f"peft lora-{way}"]["seconds"] for way in group if f"peft lora-{way}" in found]
        our = found.get("ours lora-fp32" if precision == "fp32" else "ours lora-bf16-bf16")
        if their and our:
            result[f"peft_over_ours_{precision}"] = round(min(their) / our["seconds"], 3)
        full = found.get(f"ours full-{precision}")
        if full and our:
            result[f"full_over_lora_{precision}"] = round(full["seconds"] / our["seconds"], 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
