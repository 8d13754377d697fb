"""Our Muon and our AdamW grouping against torch's own, clipping, and exact continuation from saved state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rung.errors import RunFolderError
from rung.recipe import Recipe
from rung.training.optimizers import DEFAULTS, OPTIMIZERS, Muon, OptimizerName, build_optimizer, orthogonalise


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Embedding(13, 8), nn.Linear(8, 24), nn.Linear(24, 8), nn.Linear(8, 8, bias=False))
    net.add_module("lm_head", nn.Linear(8, 13, bias=False))
    return net


def give_gradients(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def parameters_of(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def test_orthogonalise_moves_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(1)
    for shape in ((3, 24, 8), (2, 8, 24), (1, 16, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=generator)).float())
        assert values.min() > 0.3
        assert values.max() < 1.6


def test_muon_equals_torch_muon() -> None:
    ours, theirs = ([nn.Parameter(p.clone()) for p in small_net().parameters() if p.ndim == 2] for _ in range(2))
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    optimizer = Muon(ours, lr=0.02, weight_decay=0.1, momentum=0.95)
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        before = [p.detach().clone() for p in theirs]
        optimizer.step()
        reference.step()
        for p, q, old in zip(ours, theirs, before, strict=True):
            # bfloat16 products in another order: the updates agree to bfloat16's precision over five iterations.
            assert (p - q).norm() < 0.03 * (q - old).norm()
            p.data.copy_(q)


def reference(name: OptimizerName, net: nn.Module) -> torch.optim.Optimizer:
    """torch's own, with weight decay on matrices only."""
    matrices = [p for p in net.parameters() if p.ndim == 2]
    vectors = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    match name:
        case "sgd":
            return torch.optim.SGD(groups, lr=0.05, foreach=False)
        case "momentum":
            return torch.optim.SGD(groups, lr=0.05, momentum=0.9, foreach=False)
        case "nesterov":
            return torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True, foreach=False)
        case "adam":
            return torch.optim.Adam(groups, lr=0.05, betas=(0.9, 0.95), foreach=False)
        case _:
            return torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.95), foreach=False)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_each_optimiser_equals_torchs(name: OptimizerName) -> None:
    ours, theirs = small_net(), small_net()
    optimizer = build_optimizer(ours, name=name, learning_rate=0.1, weight_decay=0.1)
    judge = reference(name, theirs)
    for step in range(5):
        for net in (ours, theirs):
            give_gradients(net, step)
        optimizer.step(0.5)
        judge.step()
    torch.testing.assert_close(parameters_of(ours), parameters_of(theirs))
    assert not torch.equal(parameters_of(ours)[1], parameters_of(small_net())[1])


def test_every_optimiser_can_be_asked_for_in_a_recipe_and_has_defaults() -> None:
    for name in OPTIMIZERS:
        assert Recipe.parse({"training": {"optimizer": name}}).training.optimizer == name
    assert set(DEFAULTS) == set(OPTIMIZERS)


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    net = small_net()
    optimizer = build_optimizer(net, name="muon", learning_rate=0.01)
    give_gradients(net, 0)
    optimizer.step(1.0)
    with_momentum = {key.rpartition("/")[0] for key in optimizer.state_tensors() if key.endswith("momentum_buffer")}
    assert with_momentum == {"1.weight", "2.weight", "3.weight"}
    with_moments = {key.rpartition("/")[0] for key in optimizer.state_tensors() if key.endswith("exp_avg_sq")}
    assert with_moments == {"0.weight", "1.bias", "2.bias", "lm_head.weight"}


def test_a_multiplier_scales_one_role() -> None:
    def move(multiplier: float) -> list[torch.Tensor]:
        net = small_net()
        optimizer = build_optimizer(net, name="adamw", learning_rate=0.01, multipliers={"embedding": multiplier})
        before = parameters_of(net)
        give_gradients(net, 0)
        optimizer.step(1.0)
        return [new - old for new, old in zip(parameters_of(net), before, strict=True)]

    once, thrice = move(1.0), move(3.0)
    for (name, _), a, b in zip(small_net().named_parameters(), once, thrice, strict=True):
        scale = 3.0 if name in {"0.weight", "lm_head.weight"} else 1.0
        torch.testing.assert_close(b, scale * a, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_saved_state_continues_bit_for_bit(name: OptimizerName) -> None:
    straight = small_net()
    optimizer = build_optimizer(straight, name=name, learning_rate=0.01, weight_decay=0.1)
    for step in range(3):
        give_gradients(straight, step)
        optimizer.step(1.0)
    resumed = small_net(seed=9)
    resumed.load_state_dict(straight.state_dict())
    again = build_optimizer(resumed, name=name, learning_rate=0.01, weight_decay=0.1)
    saved = {key: value.clone() for key, value in optimizer.state_tensors().items()}
    assert bool(saved) == (name != "sgd")  # which has no state
    again.load_state_tensors(saved)
    for step in range(3, 6):
        for net, opt in ((straight, optimizer), (resumed, again)):
            give_gradients(net, step)
            opt.step(0.7)
    for p, q in zip(parameters_of(straight), parameters_of(resumed), strict=True):
        assert torch.equal(p, q)


def test_state_of_before_the_first_step_is_empty_and_loads() -> None:
    optimizer = build_optimizer(small_net(), name="muon", learning_rate=0.01)
    assert optimizer.state_tensors() == {}
    optimizer.load_state_tensors({})
    net = small_net()
    fresh = build_optimizer(net, name="muon", learning_rate=0.01)
    fresh.load_state_tensors({})
    give_gradients(net, 0)
    fresh.step(1.0)


def test_damaged_state_is_refused_by_name() -> None:
    net = small_net()
    optimizer = build_optimizer(net, name="adamw", learning_rate=0.01)
    give_gradients(net, 0)
    optimizer.step(1.0)
    good = optimizer.state_tensors()
    fresh = build_optimizer(small_net(), name="adamw", learning_rate=0.01)
    with pytest.raises(RunFolderError, match=r"lm_head\.weight"):
        fresh.load_state_tensors({k: v for k, v in good.items() if k != "lm_head.weight/exp_avg"})
    with pytest.raises(RunFolderError, match=r"9\.weight"):
        fresh.load_state_tensors({**good, "9.weight/exp_avg": torch.zeros(2)})
    with pytest.raises(RunFolderError, match=r"1\.bias/exp_avg is \[2\], not \[24\]"):
        fresh.load_state_tensors({**good, "1.bias/exp_avg": torch.zeros(2)})
    other = build_optimizer(small_net(), name="muon", learning_rate=0.01)
    with pytest.raises(RunFolderError, match="another optimiser"):
        other.load_state_tensors(good)


def test_clipping_equals_torch_and_reports_what_is_not_finite() -> None:
    ours, theirs = small_net(), small_net()
    for net in (ours, theirs):
        give_gradients(net, 3)
    optimizer = build_optimizer(ours, name="adamw", learning_rate=0.01)
    norm = optimizer.clip_grad_norm(0.5)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-7)
    before = [p.grad.clone() for p in ours.parameters() if p.grad is not None]
    optimizer.clip_grad_norm(1e6)
    assert all(torch.equal(p.grad, old) for p, old in zip(ours.parameters(), before, strict=True))
    next(ours.parameters()).grad[0, 0] = float("nan")
    assert not torch.isfinite(optimizer.clip_grad_norm(0.5))
    optimizer.zero_grad()
    assert all(p.grad is None for p in ours.parameters())


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "sgd"])
def test_loaded_state_lies_where_the_parameters_do(name: OptimizerName) -> None:
    """As torch's own `load_state_dict` has it for fused AdamW: the count of steps too (meta stands for a GPU here)."""
    net = small_net()
    optimizer = build_optimizer(net, name=name, learning_rate=0.1)
    give_gradients(net, 0)
    optimizer.step(1.0)
    saved = {key: value.cpu() for key, value in optimizer.state_tensors().items()}
    elsewhere = build_optimizer(small_net().to("meta"), name=name, learning_rate=0.1)
    elsewhere.load_state_tensors(saved)
    loaded = elsewhere.state_tensors()
    assert loaded.keys() == saved.keys()
    assert {value.device.type for value in loaded.values()} == {"meta"}
