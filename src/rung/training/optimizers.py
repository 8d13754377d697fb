"""Optimisers behind one face: a step takes one number, the schedule's factor; state is flat named tensors.

Every network of the loop can be trained with any of them:

    sgd        plain gradient descent; no state
    momentum   with Polyak's heavy ball, 0.9
    nesterov   with Nesterov's look-ahead instead (Sutskever et al. 2013)
    adam       Kingma and Ba 2015; weight decay as an L2 penalty
    adamw      the same with decoupled weight decay (Loshchilov and Hutter 2019)
    muon       orthogonalised momentum for the hidden matrices, AdamW for everything else
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from rung.errors import RunFolderError
from rung.recipe import OptimizerName

__all__ = [
    "DEFAULTS",
    "OPTIMIZERS",
    "Defaults",
    "Muon",
    "Optimizer",
    "OptimizerName",
    "build_optimizer",
    "orthogonalise",
    "rate_like_adamw",
]

OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
Role = Literal["hidden", "embedding", "vector"]


@dataclass(frozen=True)
class Defaults:
    """Where to begin with an optimiser: the rate suits language models of width 192 at 2,048 tokens a step.

    `momentum` is the share of the old direction that SGD and Muon keep; None for those that have none.
    """

    learning_rate: float
    weight_decay: float
    momentum: float | None = None


# Rates: LOG.md, "Optimisers on one axis". What decays a weight per step is rate x decay: SGD's rates are ten to a
# hundred times AdamW's, so its decay is as much smaller; Adam's is an L2 penalty, which its division makes erratic.
DEFAULTS: Mapping[OptimizerName, Defaults] = {
    "sgd": Defaults(1.0, 3e-4),
    "momentum": Defaults(0.2, 1.5e-3, momentum=0.9),
    "nesterov": Defaults(0.3, 1e-3, momentum=0.9),
    "adam": Defaults(0.003, 0.0),
    "adamw": Defaults(0.003, 0.1),
    "muon": Defaults(0.01, 0.1, momentum=0.95),
}


def rate_like_adamw(name: OptimizerName, adamw_rate: float) -> float:
    """A learning rate to begin with for `name` where `adamw_rate` suits AdamW: scaled as their defaults are."""
    return float(f"{adamw_rate * DEFAULTS[name].learning_rate / DEFAULTS['adamw'].learning_rate:.6g}")


# Coefficients of the quintic iteration, chosen for the steepest slope at zero (kellerjordan.github.io/posts/muon).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Return `matrices` (n, rows, columns) with all singular values moved to near 1 (0.5 to 1.5), in bfloat16.

    Newton-Schulz iteration of Muon, on a stack of matrices of one shape.
    """
    a, b, c = _NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) with the scale of Moonshot's (arXiv 2502.16982), equal shapes taken as one stack.

    The update, times 0.2 sqrt(max(rows, columns)), has AdamW's root mean square: one learning rate serves both.
    The same arithmetic as `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`, which takes one matrix at a time: 53 ms
    a step at 4 layers x 192 where this takes 31 ms, and 433 against 241 ms at 6 x 384 (two cores with AMX). Compiling
    the iteration did not help (32 and 309 ms).
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 - torch's signature
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for params in by_shape.values():
                self._step_stack(params, group["lr"], group["weight_decay"], group["momentum"])

    def _step_stack(self, params: list[torch.Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        gradients = [cast(torch.Tensor, p.grad) for p in params]
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = orthogonalise(torch.stack(torch._foreach_lerp(gradients, buffers, momentum)))
        torch._foreach_mul_(params, 1 - lr * weight_decay)
        torch._foreach_add_(
            params, updates.to(params[0].dtype).unbind(), alpha=-lr * 0.2 * math.sqrt(max(params[0].shape))
        )


class Optimizer:
    """One or two torch optimisers over one network, driven together.

    The learning rate and its multipliers by role are fixed; a step is given the schedule's factor only.
    """

    def __init__(
        self, names: Mapping[nn.Parameter, str], parts: list[torch.optim.Optimizer], learning_rate: float
    ) -> None:
        """Take `parts`, whose groups carry `multiplier`; `names` names every parameter. Use `build_optimizer`."""
        self._names = dict(names)
        self._parts = parts
        self._learning_rate = learning_rate

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    @torch.no_grad()
    def clip_grad_norm(self, max_norm: float) -> torch.Tensor:
        """Scale gradients so that their global norm is at most `max_norm`; return the norm before, 0-dimensional.

        One pass serves the finite check too: the norm is not finite exactly if some gradient is not (or the sum of
        squares overflows float32, which is as fatal). Gradients are then left as they are, for the caller to drop.
        """
        gradients = [p.grad for p in self._names if p.grad is not None]
        norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if norm > max_norm and torch.isfinite(norm):
            torch._foreach_mul_(gradients, max_norm / norm)
        return norm

    def step(self, factor: float) -> None:
        """Update all parameters at `learning_rate` x their role's multiplier x `factor`."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = self._learning_rate * group["multiplier"] * factor
            part.step()

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Return the whole state as `parameter name/slot` -> tensor, the tensors themselves, not copies.

        Empty before the first step.
        """
        return {
            f"{name}/{slot}": value
            for part in self._parts
            for p, name in self._names.items()
            for slot, value in part.state.get(p, {}).items()
        }

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue exactly from `state_tensors()` of an optimiser built the same way.

        A parameter that has not been moved yet, because it was frozen so far, has no state. RunFolderError names what
        is missing, unknown or of the wrong shape.
        """
        by_name = {name: p for p, name in self._names.items()}
        slots_of: dict[nn.Parameter, dict[str, torch.Tensor]] = {p: {} for p in self._names}
        for key, value in tensors.items():
            name, _, slot = key.rpartition("/")
            if name not in by_name:
                raise RunFolderError(f"optimiser state for a parameter that does not exist: {key}")
            p = by_name[name]
            if value.ndim and value.shape != p.shape:
                raise RunFolderError(f"optimiser state {key} is {list(value.shape)}, not {list(p.shape)}")
            slots_of[p][slot] = value.to(p.device, copy=True)  # `step` too: fused AdamW counts where it computes
        for part in self._parts:
            for group in part.param_groups:
                for p in group["params"]:
                    found, wanted = set(slots_of[p]), _slots(part)
                    if found and found != wanted:
                        raise RunFolderError(
                            f"optimiser state of {self._names[p]} has {sorted(found)}, not {sorted(wanted)}",
                            hint="the checkpoint was written with another optimiser",
                        )
                    part.state[p] = cast(dict[str, Any], slots_of[p])


def _slots(part: torch.optim.Optimizer) -> set[str]:
    """What `part` keeps of each parameter."""
    if isinstance(part, torch.optim.Adam):  # AdamW too is one
        return {"step", "exp_avg", "exp_avg_sq"}
    return {"momentum_buffer"} if all(group["momentum"] for group in part.param_groups) else set()


def build_optimizer(
    net: nn.Module,
    *,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    momentum: float | None = None,
    multipliers: Mapping[Role, float] | None = None,
    rate_of: Callable[[str], float] | None = None,
) -> Optimizer:
    """Return the optimiser called `name` over all trainable parameters of `net`; frozen ones are left alone.

    Roles: "embedding" is the matrix of any `nn.Embedding` and of `lm_head`; "hidden" is any other matrix; the rest
    (norms, biases) are "vector" and never decay. "muon" puts the hidden matrices under Muon, the rest under AdamW.
    `betas` are Adam's and AdamW's, `momentum` (default: `DEFAULTS`) Muon's and SGD's; `multipliers` scale the learning
    rate by role (default 1), `rate_of` by the parameter's name (layer-wise rates; default 1).
    """
    names = {p: key for key, p in net.named_parameters() if p.requires_grad}
    groups = _groups(net, names, weight_decay, multipliers or {}, rate_of or (lambda _name: 1.0))
    momentum = DEFAULTS[name].momentum if momentum is None else momentum
    parts: list[torch.optim.Optimizer] = []
    hidden = [group for (role, _), group in groups.items() if role == "hidden" and name == "muon"]
    if hidden:
        parts.append(Muon(hidden, lr=learning_rate, momentum=momentum or 0.0))  # type: ignore[arg-type]
    rest = [group for (role, _), group in groups.items() if role != "hidden" or name != "muon"]
    if not rest:
        return Optimizer(names, parts, learning_rate)
    match name:
        case "sgd" | "momentum" | "nesterov":
            is_nesterov = name == "nesterov"
            parts.append(torch.optim.SGD(rest, lr=learning_rate, momentum=momentum or 0.0, nesterov=is_nesterov))
        case "adam":
            parts.append(torch.optim.Adam(rest, lr=learning_rate, betas=betas, fused=True))
        case "adamw" | "muon":
            # Fused: 10 ms a step for 12M parameters on two cores, against 48 ms as `foreach` and 39 ms one by one.
            parts.append(torch.optim.AdamW(rest, lr=learning_rate, betas=betas, fused=True))
    return Optimizer(names, parts, learning_rate)


def _groups(
    net: nn.Module,
    names: Mapping[nn.Parameter, str],
    weight_decay: float,
    multipliers: Mapping[Role, float],
    rate_of: Callable[[str], float],
) -> dict[tuple[Role, float], dict[str, Any]]:
    """Parameters by role and rate, with what holds for each."""
    embeddings = {m.weight for m in net.modules() if isinstance(m, nn.Embedding)}
    groups: dict[tuple[Role, float], dict[str, Any]] = {}
    for role in get_args(Role):
        for p, key in names.items():
            is_embedding = p in embeddings or key == "lm_head.weight"
            if role != ("vector" if p.ndim < 2 else "embedding" if is_embedding else "hidden"):
                continue
            rate = multipliers.get(role, 1.0) * rate_of(key)
            decay = 0.0 if role == "vector" else weight_decay
            group = groups.setdefault((role, rate), {"params": [], "weight_decay": decay, "multiplier": rate})
            group["params"].append(p)
    return groups
