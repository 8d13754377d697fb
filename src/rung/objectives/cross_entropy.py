"""Cross-entropy fused with the output matrix, in chunks of tokens, so that the scores never exist in full.

The idea is Liger Kernel's (arXiv 2410.10989, section 3.2): the gradient with respect to the scores is known as soon as
the scores are, so each chunk's share of both gradients is computed in the forward pass and the chunk is dropped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

IGNORED = -100
# Scores of one chunk, in elements: 2^21 bfloat16 scores are 4 MiB, which two cores' second-level caches hold.
_CHUNK_SCORES = 2**21
# With a large vocabulary that is few rows, and products of few rows are slow: 15 % of a step's loss at 10,000 words. So
# up to this many rows are taken at once while their scores stay within 32 MiB of float32.
_CHUNK_ROWS, _MOST_CHUNK_SCORES = 1024, 2**23


def fused_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    z_loss: float = 0.0,
    *,
    bias: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 sums over the tokens whose label is not -100: of the loss, and of cross-entropy alone (detached).

    `hidden` (tokens, hidden) in the dtype to compute in, `weight` (vocabulary, hidden), `labels` (tokens,) int64,
    `bias` (vocabulary,) where scores are `hidden @ weight.T + bias`. The loss is cross-entropy plus `z_loss` (log Z)^2,
    which keeps the normaliser Z near 1 (PaLM, arXiv 2204.02311, 5). With `smoothing` s the aim is 1 - s for the label
    and s spread evenly over the vocabulary (Szegedy et al. 2016, section 7). Softmax and sums are float32. Gradients
    reach `hidden`, `weight` and `bias`; there are no second derivatives.
    """
    aim = _Aim(z_loss, smoothing)
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (hidden, weight, bias)):
        total, entropy = _FusedCrossEntropy.apply(hidden, weight, labels, aim, bias)  # type: ignore[no-untyped-call]
        return total, entropy
    cast = weight.to(hidden.dtype)
    sums = hidden.new_zeros(2, dtype=torch.float32)
    for rows, targets in _chunks(hidden, labels, len(weight)):
        sums = sums + _sums(*_log_probabilities(_scores(rows, cast, bias)), targets, aim)
    return sums[0], sums[1]


class _Aim(NamedTuple):
    z_loss: float
    smoothing: float


def _chunks(hidden: torch.Tensor, labels: torch.Tensor, vocabulary: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rows = max(1, _CHUNK_SCORES // vocabulary, min(_CHUNK_ROWS, _MOST_CHUNK_SCORES // vocabulary))
    return list(zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True))


def _scores(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return F.linear(rows, weight, None if bias is None else bias.to(rows.dtype))


def _log_probabilities(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log softmax (tokens, vocabulary) and log Z (tokens, 1) in float32."""
    logarithms = scores.log_softmax(1, dtype=torch.float32)
    return logarithms, scores[:, :1].float() - logarithms[:, :1]


def _sums(logarithms: torch.Tensor, normaliser: torch.Tensor, targets: torch.Tensor, aim: _Aim) -> torch.Tensor:
    """Return (loss, cross-entropy) summed over valid targets."""
    valid = (targets != IGNORED)[:, None]
    entropy = -logarithms.gather(1, targets.clamp(min=0)[:, None]).where(valid, 0.0).sum()
    loss = entropy + aim.z_loss * normaliser.where(valid, 0.0).square().sum()
    if aim.smoothing:
        loss = loss + aim.smoothing * (-logarithms.mean(1, keepdim=True).where(valid, 0.0).sum() - entropy)
    return torch.stack((loss, entropy))


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take positional arguments only
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        aim: _Aim,
        bias: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cast = weight.to(hidden.dtype)
        hidden_gradients = []
        # A frozen matrix, as LoRA's base has it, saves a third of the products and its gradient's memory.
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        bias_gradient = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        sums = hidden.new_zeros(2, dtype=torch.float32)
        for rows, targets in _chunks(hidden, labels, len(weight)):
            logarithms, normaliser = _log_probabilities(_scores(rows, cast, bias))
            sums = sums + _sums(logarithms, normaliser, targets, aim)
            # d loss / d scores = scale x (softmax - aim / boost); the aim is the one-hot label, perhaps smoothed. The
            # scale of a row, 0 where there is no target, is applied to the narrow side of each product instead of to
            # the scores.
            boost = 1 + 2 * aim.z_loss * normaliser
            scale = ((targets != IGNORED)[:, None] * boost).to(hidden.dtype)
            gradient = logarithms.exp_()
            if aim.smoothing:
                gradient.sub_(aim.smoothing / len(weight) / boost)
            gradient.scatter_add_(1, targets.clamp(min=0)[:, None], (aim.smoothing - 1) / boost)
            gradient = gradient.to(hidden.dtype)
            hidden_gradients.append(gradient @ cast * scale)
            if weight_gradient is not None:
                weight_gradient += gradient.t() @ (rows * scale)
            if bias_gradient is not None:
                bias_gradient += (gradient.t() @ scale).squeeze(1)
        ctx.save_for_backward(torch.cat(hidden_gradients), weight_gradient, bias_gradient)
        ctx.weight_dtype = weight.dtype
        total, entropy = sums[0].clone(), sums[1].clone()
        ctx.mark_non_differentiable(entropy)
        return total, entropy

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None, torch.Tensor | None]:
        hidden_gradient, weight_gradient, bias_gradient = ctx.saved_tensors
        scale = gradients[0]
        return (
            hidden_gradient * scale.to(hidden_gradient.dtype),
            None if weight_gradient is None else (weight_gradient * scale).to(ctx.weight_dtype),
            None,
            None,
            None if bias_gradient is None else (bias_gradient * scale).to(ctx.weight_dtype),
        )
