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
        scores = (rows @ cast.t()).float()
        sums = sums + _sums(scores, scores.logsumexp(1), targets, z_loss)
    return sums[0], sums[1]


def _chunks(hidden: torch.Tensor, labels: torch.Tensor, vocabulary: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rows = max(1, _CHUNK_SCORES // vocabulary)
    return list(zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True))


def _sums(scores: torch.Tensor, normaliser: torch.Tensor, targets: torch.Tensor, z_loss: float) -> torch.Tensor:
    """Return (loss, cross-entropy) summed over valid targets; `normaliser` is log Z, (tokens,)."""
    valid = targets != IGNORED
    entropy = normaliser - scores.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    entropy_sum = torch.where(valid, entropy, 0.0).sum()
    return torch.stack((entropy_sum + z_loss * torch.where(valid, normaliser, 0.0).square().sum(), entropy_sum))


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
            scores = (rows @ cast.t()).float()
            normaliser = scores.logsumexp(1)
            sums = sums + _sums(scores, normaliser, targets, z_loss)
            gradient = _score_gradient(scores, normaliser, targets, z_loss).to(hidden.dtype)
            hidden_gradients.append(gradient @ cast)
            weight_gradient += gradient.t() @ rows
        ctx.save_for_backward(torch.cat(hidden_gradients), weight_gradient)
        ctx.weight_dtype = weight.dtype
        total, entropy = sums[0].clone(), sums[1].clone()
        ctx.mark_non_differentiable(entropy)
        return total, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scale = gradients[0]
        return hidden_gradient * scale, (weight_gradient * scale).to(ctx.weight_dtype), None, None


def _score_gradient(
    scores: torch.Tensor, normaliser: torch.Tensor, targets: torch.Tensor, z_loss: float
) -> torch.Tensor:
    """Return the gradient of the summed loss with respect to `scores` (tokens, vocabulary); `scores` is overwritten."""
    valid = (targets != IGNORED).to(scores.dtype)[:, None]
    probabilities = scores.sub_(normaliser[:, None]).exp_()
    gradient = probabilities.mul_(valid * (1 + 2 * z_loss * normaliser[:, None]))
    return gradient.scatter_add_(1, targets.clamp(min=0)[:, None], -valid)
