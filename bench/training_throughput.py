"""Training speed against transformers' Qwen3ForCausalLM: same weights, same batches, same optimiser, taking turns.

    python bench/training_throughput.py                          the reference shape on two CPU cores
    python bench/training_throughput.py --layers 4 --hidden 192 --context 128 --vocabulary 512
    python bench/training_throughput.py --device cuda --layers 12 --hidden 768 --context 1024 --vocabulary 32768
    ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 python bench/training_throughput.py      a CPU with AMX as one without

Every variant runs in this one process with the same allocator settings; rounds alternate; medians are compared. A step
is forward, backward, clipping and fused AdamW. Theirs keeps bfloat16 weights, or float32 weights under autocast,
whichever is faster; ours always keeps float32 masters. Share of the peak: 6 FLOPs per matmul parameter and token plus
causal attention's, over the best rate of the net's own matrix products (the median of one probe a round: clocks vary).
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import transformers

from rung.nets.decoder import CausalLM, DecoderConfig
from rung.nets.pretrained import load_net, save_net
from rung.objectives.next_token import NextToken
from rung.training.optimizers import build_optimizer
from rung.training.precision import matmul_peak, tune_allocator

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
LEARNING_RATE, CLIP = 1e-4, 1.0


def our_step(folder: Path, config: DecoderConfig, device: torch.device, optimizer_name: str, compiled: bool) -> Step:
    """A step of Rung's own decoder and objective."""
    net = load_net(folder).to(device).train()
    assert net.config == config
    net.compute_dtype = torch.bfloat16
    optimizer = build_optimizer(net, name=optimizer_name, learning_rate=LEARNING_RATE)  # type: ignore[arg-type]
    objective = NextToken()

    def total(input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = objective(net, {"input_ids": input_ids, "labels": labels})
        return loss.total / loss.count

    function = torch.compile(total, dynamic=False) if compiled else total

    def step(input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = function(input_ids, labels)
        loss.backward()
        optimizer.clip_grad_norm(CLIP)
        optimizer.step(1.0)
        return loss.detach()

    return step


def their_step(folder: Path, device: torch.device, bf16_weights: bool, compiled: bool) -> Step:
    """A step of transformers' network with its own loss, as its documentation trains it."""
    dtype = torch.bfloat16 if bf16_weights else torch.float32
    net = transformers.Qwen3ForCausalLM.from_pretrained(folder, dtype=dtype).to(device).train()
    net.config.use_cache = False
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    function = torch.compile(net, dynamic=False) if compiled else net

    def step(input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with nullcontext() if bf16_weights else torch.autocast(device.type, torch.bfloat16):
            # `shift_labels` are labels that are already shifted: the same targets as ours.
            loss = function(input_ids=input_ids, labels=labels, shift_labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        return loss.detach()

    return step


def timed(step: Step, batch: tuple[torch.Tensor, torch.Tensor], device: torch.device) -> tuple[float, float]:
    """Seconds of one step, and its loss."""
    began = time.perf_counter()
    loss = step(*batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, loss.item()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--kv-heads", type=int, help="default: as many as query heads (hidden / 64)")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "muon"), help="ours; theirs is AdamW")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="steps a variant takes in a round")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--only", help="variants to run, by comma, e.g. 'rung eager,transformers bf16 eager'")
    return parser.parse_args()


def build(options: argparse.Namespace, config: DecoderConfig, folder: Path, device: torch.device) -> dict[str, Step]:
    """All variants asked for, over the same initial weights."""
    makers: dict[str, Callable[[], Step]] = {}
    for how in ("eager",) if options.no_compile else ("eager", "compiled"):
        compiled = how == "compiled"
        makers[f"rung {how}"] = lambda c=compiled: our_step(folder, config, device, options.optimizer, c)
        makers[f"transformers bf16 {how}"] = lambda c=compiled: their_step(folder, device, True, c)
        makers[f"transformers autocast {how}"] = lambda c=compiled: their_step(folder, device, False, c)
    chosen = options.only.split(",") if options.only else list(makers)
    return {name: makers[name]() for name in chosen}


def main() -> None:
    tune_allocator()
    transformers.utils.logging.disable_progress_bar()
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = DecoderConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=-(-options.hidden * 8 // 3 // 64) * 64,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        num_key_value_heads=options.kv_heads or options.hidden // 64,
        head_dim=64,
        max_position_embeddings=options.context,
    )
    tokens = torch.randint(0, config.vocab_size, (options.batch, options.context + 1), device=device)
    batch = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    with tempfile.TemporaryDirectory() as folder:
        save_net(CausalLM(config), Path(folder))
        steps = build(options, config, Path(folder), device)
    first, losses = {}, {}
    for name, step in steps.items():
        first[name], losses[name] = timed(step, batch, device)
        timed(step, batch, device)
    assert max(losses.values()) - min(losses.values()) < 0.02, f"not the same computation: {losses}"
    gc.collect()
    gc.freeze()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks = []
    for _ in range(options.rounds):
        peaks.append(matmul_peak(config, batch[0].numel(), torch.bfloat16, device))
        for name, step in steps.items():
            seconds[name] += [timed(step, batch, device)[0] for _ in range(options.steps)]
    peak = statistics.median(peaks)
    report(options=options, config=config, tokens=batch[0].numel(), peak=peak, seconds=seconds, first=first)


def report(
    *,
    options: argparse.Namespace,
    config: DecoderConfig,
    tokens: int,
    peak: float,
    seconds: dict[str, list[float]],
    first: dict[str, float],
) -> None:
    """Print the table, the ratios and the JSON line."""
    flops = config.flops_per_token(options.context) * tokens
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{config.num_parameters / 1e6:.1f}M parameters, {tokens} tokens a step, peak {peak / 1e9:.0f} GFLOP/s")
    print(f"{'variant':<32}{'ms/step':>9}{'fastest':>9}{'tokens/s':>10}{'of peak':>9}{'first step':>12}")
    for name, value in median.items():
        print(
            f"{name:<32}{value * 1e3:>9.0f}{min(seconds[name]) * 1e3:>9.0f}{tokens / value:>10.0f}"
            f"{flops / value / peak:>9.1%}{first[name]:>11.1f}s"
        )
    ratios = {}
    for how in ("eager", "compiled"):
        theirs = [value for name, value in median.items() if name.startswith("transformers") and name.endswith(how)]
        for ours in ("rung eager", "rung compiled"):
            if theirs and ours in median:
                ratios[f"{ours} / transformers {how}"] = round(min(theirs) / median[ours], 3)
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}x")
    shape = {key: value for key, value in vars(options).items() if key not in {"rounds", "steps", "no_compile", "only"}}
    result = {
        "bench": "training_throughput",
        "shape": shape,
        "parameters": config.num_parameters,
        "peak_flops": peak,
        "tokens_per_second": {name: round(tokens / value) for name, value in median.items()},
        "share_of_peak": {name: round(flops / value / peak, 4) for name, value in median.items()},
        "first_step_seconds": {name: round(value, 2) for name, value in first.items()},
        "ratios": ratios,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
