"""Cross-entropy fused with the output matrix, in chunks of tokens, so that the scores never exist in full.

The idea is Liger Kernel's (arXiv 2410.10989, section 3.2): the gradient with respect to the scores is known as soon as
the scores are, so each chunk's share of both gradients is computed in the forward pass and the chunk is dropped.
"""

from __future__ import annotations

from typing import Any

import torch

IGNORED = -100
# Scores of one chunk, in elements: 2^21 bfloat16 scores are 4 MiB, which two cores' second-level caches hold.
_CHUNK_SCORES = 2**21


def fused_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, z_loss: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 sums over the tokens whose label is not -100: of the loss, and of cross-entropy alone (detached).

    `hidden` (tokens, hidden) in the dtype to compute in, `weight` (vocabulary, hidden), `labels` (tokens,) int64. The
    loss is cross-entropy plus `z_loss` (log Z)^2, which keeps the normaliser Z near 1 (PaLM, arXiv 2204.02311, 5).
    Softmax and sums are float32. Gradients reach `hidden` and `weight`; there are no second derivatives.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        total, entropy = _FusedCrossEntropy.apply(hidden, weight, labels, z_loss)  # type: ignore[no-untyped-call]
        return total, entropy
    cast = weight.to(hidden.dtype)
    sums = hidden.new_zeros(2, dtype=torch.float32)
    for rows, targets in _chunks(hidden, labels, len(weight)):
        sums = sums + _sums(*_log_probabilities(rows @ cast.t()), targets, z_loss)
    return sums[0], sums[1]


def _chunks(hidden: torch.Tensor, labels: torch.Tensor, vocabulary: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rows = max(1, _CHUNK_SCORES // vocabulary)
    return list(zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True))


def _log_probabilities(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log softmax (tokens, vocabulary) and log Z (tokens, 1) in float32."""
    logarithms = scores.log_softmax(1, dtype=torch.float32)
    return logarithms, scores[:, :1].float() - logarithms[:, :1]


def _sums(logarithms: torch.Tensor, normaliser: torch.Tensor, targets: torch.Tensor, z_loss: float) -> torch.Tensor:
    """Return (loss, cross-entropy) summed over valid targets."""
    valid = (targets != IGNORED)[:, None]
    entropy = -logarithms.gather(1, targets.clamp(min=0)[:, None]).where(valid, 0.0).sum()
    return torch.stack((entropy + z_loss * normaliser.where(valid, 0.0).square().sum(), entropy))


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, z_loss: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cast = weight.to(hidden.dtype)
        hidden_gradients = []
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        sums = hidden.new_zeros(2, dtype=torch.float32)
        for rows, targets in _chunks(hidden, labels, len(weight)):
            logarithms, normaliser = _log_probabilities(rows @ cast.t())
            sums = sums + _sums(logarithms, normaliser, targets, z_loss)
            # d loss / d scores = scale x (softmax - one-hot / boost). The scale of a row, 0 where there is no target,
            # is applied to the narrow side of each product instead of to the scores.
            boost = 1 + 2 * z_loss * normaliser
            scale = ((targets != IGNORED)[:, None] * boost).to(hidden.dtype)
            gradient = logarithms.exp_().scatter_add_(1, targets.clamp(min=0)[:, None], -1 / boost).to(hidden.dtype)
            hidden_gradients.append(gradient @ cast * scale)
            weight_gradient += gradient.t() @ (rows * scale)
        ctx.save_for_backward(torch.cat(hidden_gradients), weight_gradient)
        ctx.weight_dtype = weight.dtype
        total, entropy = sums[0].clone(), sums[1].clone()
        ctx.mark_non_differentiable(entropy)
        return total, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scale = gradients[0]
        return (
            hidden_gradient * scale.to(hidden_gradient.dtype),
            (weight_gradient * scale).to(ctx.weight_dtype),
            None,
            None,
        )
