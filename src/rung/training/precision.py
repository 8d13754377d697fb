"""What this machine multiplies fastest, measured rather than assumed, and an allocator that does not get in the way."""

from __future__ import annotations

import ctypes
import sys
import time

import torch
import torch.nn.functional as F

from rung.nets.body import LanguageModelConfig

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc malloc.h
_REPEATS = 7


def tune_allocator() -> None:
    """Tell glibc to keep freed memory instead of handing it back to the system at every step; elsewhere do nothing.

    Activations of some MiB are otherwise mapped, zeroed and unmapped anew in every step: 47,000 to 100,000 page faults
    a step of a 12M decoder, against 0 to 3,300 with this. Call it before torch starts a thread: threads get arenas of
    their own otherwise, to which the threshold does not seem to apply. `M_TOP_PAD`, often set along with these, is left
    alone: at 512 MiB steps were 5 times slower in one comparison, perhaps because arenas could not grow by it.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not in every C library
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)


def bf16_is_faster(device: torch.device) -> bool:
    """Whether a middling matrix product is faster in bfloat16 than in float32 on `device`, by a short measurement."""
    shape = (2048, 384, 1024) if device.type == "cpu" else (8192, 2048, 2048)
    return _product_seconds(*shape, torch.bfloat16, device) < _product_seconds(*shape, torch.float32, device)


def matmul_peak(config: LanguageModelConfig, tokens: int, dtype: torch.dtype, device: torch.device) -> float:
    """The best rate over the matrix products that a forward pass of `tokens` tokens consists of, in FLOP per second."""
    return max(2 * tokens * k * n / _product_seconds(tokens, k, n, dtype, device) for k, n in config.matrix_shapes)


def _product_seconds(rows: int, inner: int, columns: int, dtype: torch.dtype, device: torch.device) -> float:
    """The fastest of some products (rows, inner) x (inner, columns), after a warm-up."""
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype)
    best = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        F.linear(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best
