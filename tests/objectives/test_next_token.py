"""The fused objective against torch's own cross-entropy, and sums that do not depend on how a batch is split."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from rung.objectives import cross_entropy
from rung.objectives.cross_entropy import fused_cross_entropy
from rung.objectives.loss import Loss
from rung.objectives.next_token import NextToken


def problem(
    tokens: int = 37, hidden: int = 12, vocabulary: int = 29
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(tokens, hidden, generator=generator).requires_grad_()
    weight = torch.randn(vocabulary, hidden, generator=generator).requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    labels[::5] = -100
    return rows, weight, labels


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("rows_per_chunk", [1, 10, 1000])
def test_value_and_gradients_equal_plain_cross_entropy(
    z_loss: float, rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, weight, labels = problem()
    monkeypatch.setattr(cross_entropy, "_CHUNK_SCORES", rows_per_chunk * len(weight))
    total, entropy = fused_cross_entropy(rows, weight, labels, z_loss)
    (total / 7).backward()
    ours = [rows.grad, weight.grad]
    rows.grad = weight.grad = None
    scores = rows @ weight.t()
    plain = F.cross_entropy(scores, labels, ignore_index=-100, reduction="sum")
    expected = plain + z_loss * scores.logsumexp(1)[labels != -100].square().sum()
    (expected / 7).backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(entropy, plain)
    assert not entropy.requires_grad
    torch.testing.assert_close(ours, [rows.grad, weight.grad])
    with torch.no_grad():
        torch.testing.assert_close(fused_cross_entropy(rows, weight, labels, z_loss), (expected, plain))


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("rows_per_chunk", [10, 1000])
def test_with_smoothing_value_and_gradients_equal_plain_cross_entropy(
    z_loss: float, rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, weight, labels = problem()
    monkeypatch.setattr(cross_entropy, "_CHUNK_SCORES", rows_per_chunk * len(weight))
    total, entropy = fused_cross_entropy(rows, weight, labels, z_loss, smoothing=0.1)
    (total / 7).backward()
    ours = [rows.grad, weight.grad]
    rows.grad = weight.grad = None
    scores = rows @ weight.t()
    plain = F.cross_entropy(scores, labels, ignore_index=-100, reduction="sum", label_smoothing=0.1)
    expected = plain + z_loss * scores.logsumexp(1)[labels != -100].square().sum()
    (expected / 7).backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(entropy, F.cross_entropy(scores, labels, ignore_index=-100, reduction="sum"))
    torch.testing.assert_close(ours, [rows.grad, weight.grad])
    with torch.no_grad():
        torch.testing.assert_close(fused_cross_entropy(rows, weight, labels, z_loss, smoothing=0.1)[0], expected)


@pytest.mark.parametrize("rows_per_chunk", [10, 1000])
def test_with_a_bias_value_and_gradients_equal_plain_cross_entropy(
    rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, weight, labels = problem()
    bias = torch.randn(len(weight), generator=torch.Generator().manual_seed(1)).requires_grad_()
    monkeypatch.setattr(cross_entropy, "_CHUNK_SCORES", rows_per_chunk * len(weight))
    total, _ = fused_cross_entropy(rows, weight, labels, bias=bias)
    (total / 7).backward()
    ours = [rows.grad, weight.grad, bias.grad]
    rows.grad = weight.grad = bias.grad = None
    plain = F.cross_entropy(F.linear(rows, weight, bias), labels, ignore_index=-100, reduction="sum")
    (plain / 7).backward()
    torch.testing.assert_close(total, plain)
    torch.testing.assert_close(ours, [rows.grad, weight.grad, bias.grad])
    with torch.no_grad():
        torch.testing.assert_close(fused_cross_entropy(rows, weight, labels, bias=bias)[0], plain)


def test_gradients_reach_whichever_input_asks() -> None:
    rows, weight, labels = problem()
    fused_cross_entropy(rows, weight, labels)[0].backward()
    alone = rows.detach().requires_grad_()
    fused_cross_entropy(alone, weight.detach(), labels)[0].backward()
    torch.testing.assert_close(alone.grad, rows.grad)
    head = weight.detach().requires_grad_()
    fused_cross_entropy(rows.detach(), head, labels)[0].backward()
    torch.testing.assert_close(head.grad, weight.grad)


def test_bfloat16_rows_keep_float32_sums_and_float32_weight_gradients() -> None:
    rows, weight, labels = problem(tokens=300)
    rough = rows.detach().bfloat16().requires_grad_()
    total, _ = fused_cross_entropy(rough, weight, labels)
    total.backward()
    assert total.dtype == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    ours = weight.grad.clone()
    weight.grad = None
    exact = F.cross_entropy(rows @ weight.t(), labels, ignore_index=-100, reduction="sum")
    exact.backward()
    torch.testing.assert_close(total, exact, rtol=5e-3, atol=0)
    assert (ours - weight.grad).norm() < 0.02 * weight.grad.norm()


def test_no_valid_target_gives_zero_loss_and_zero_gradient() -> None:
    rows, weight, labels = problem()
    total, entropy = fused_cross_entropy(rows, weight, torch.full_like(labels, -100), z_loss=0.1)
    total.backward()
    assert total.item() == entropy.item() == 0
    assert rows.grad is not None
    assert not rows.grad.any()


def table_model() -> SimpleNamespace:
    """A body that looks up a row a token, so that the objective is tested apart from any network family."""
    generator = torch.Generator().manual_seed(2)
    embedding = torch.randn(11, 6, generator=generator)
    body = SimpleNamespace(embed=lambda ids: embedding[ids])
    model = type("Body", (), {"embed": body.embed, "__call__": lambda _, x, __: SimpleNamespace(hidden=x)})
    model.embed = staticmethod(body.embed)
    return SimpleNamespace(model=model(), lm_head=SimpleNamespace(weight=torch.randn(11, 6, generator=generator)))


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    net = table_model()
    ids = torch.randint(0, 11, (6, 8), generator=torch.Generator().manual_seed(1))
    labels = ids.roll(-1, dims=1)
    labels[0, 3:] = -100
    whole = NextToken(z_loss=1e-3)(net, {"input_ids": ids, "labels": labels})
    first, second = (
        NextToken(z_loss=1e-3)(net, {"input_ids": ids[s], "labels": labels[s]}) for s in (slice(2), slice(2, 6))
    )
    parts = first + second
    assert whole.count.item() == parts.count.item() == 6 * 8 - 5
    torch.testing.assert_close(parts.total, whole.total)
    torch.testing.assert_close(parts.metrics["cross_entropy"], whole.metrics["cross_entropy"])
    torch.testing.assert_close(parts.mean(), whole.mean())
    assert first.mean() != second.mean()


def test_losses_with_different_metrics_do_not_add() -> None:
    one = torch.ones(())
    with pytest.raises(ValueError, match="cross_entropy"):
        Loss(one, one) + Loss(one, one, {"cross_entropy": one})
