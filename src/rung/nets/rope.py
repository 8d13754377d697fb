"""Rotary positions: their frequencies, and the ways in use of stretching them to longer contexts.

A network trained on short texts reads longer ones when its slow rotations are slowed further. The variants and their
keys are those of transformers (`modeling_rope_utils.py`), in both of its spellings: `rope_parameters` of version 5,
`rope_scaling` with `type` or `rope_type` of version 4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rung.errors import RunFolderError
from rung.nets.strict_config import is_number

if TYPE_CHECKING:
    import torch

_ORIGINAL = "original_max_position_embeddings"
_ENDLESS = 1e9  # more than any factor, turn or context in use
# Which keys each variant needs, and which it may have beside them.
_NEEDED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": (),
}
_OPTIONAL = {
    "linear": (),
    "dynamic": (),
    "llama3": (_ORIGINAL,),
    "yarn": ("factor", _ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotations are slowed, in Hugging Face's names; a key that a variant does not use stays None.

    - `linear`: all by `factor` (arXiv 2306.15595).
    - `dynamic`: as far as a text exceeds `max_position_embeddings`, which no text does here: nothing changes.
    - `llama3`: those slower than `low_freq_factor` turns within the original context by `factor`, those faster than
      `high_freq_factor` not at all, smoothly between them (Llama 3.1).
    - `yarn`: the same between `beta_slow` and `beta_fast` turns, linearly by the number of the pair, and scores grow
      by the square of `attention_factor` (arXiv 2309.00071, sections 3.2 and 3.4).
    """

    rope_type: str
    factor: float
    original_max_position_embeddings: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool | None = None

    def to_hf(self) -> dict[str, Any]:
        """The object of `config.json`, without the keys that are not used."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_hf(cls, stored: Mapping[str, Any], *, max_position_embeddings: Any, where: str) -> RopeScaling | None:
        """Read either spelling; None for the default rotations. RunFolderError for what is unknown or missing."""
        given = {key: value for key, value in stored.items() if value is not None}
        values = {key: value for key, value in given.items() if key not in ("rope_theta", "type")}
        kind = values.pop("rope_type", given.get("type", "default"))
        if values.get("partial_rotary_factor") == 1:
            del values["partial_rotary_factor"]  # all of a head turns, which is what every head here does
        if kind not in ("default", *_NEEDED):
            hint = f"supported: default, {', '.join(_NEEDED)}"
            raise _refusal(f"rope_type {kind!r:.80} is not supported", hint, where)
        needed, optional = (_NEEDED[kind], _OPTIONAL[kind]) if kind != "default" else ((), ())
        if unknown := sorted(values.keys() - {*needed, *optional}):
            raise _refusal(f"rope_type '{kind}' has keys that are not supported: {', '.join(unknown)}", None, where)
        if missing := [key for key in needed if key not in values]:
            raise _refusal(f"rope_type '{kind}' lacks {', '.join(missing)}", None, where)
        if kind == "default":
            return None
        for key, value in values.items():
            right = isinstance(value, bool) if key == "truncate" else is_number(value) and 0 < value < _ENDLESS
            if not right:
                raise _refusal(f"{key} of rope_type '{kind}' cannot be {value!r:.80}", None, where)
        longest = max_position_embeddings if is_number(max_position_embeddings) else 1  # refused with the other sizes
        if _ORIGINAL in optional:
            values.setdefault(_ORIGINAL, longest)
        if kind == "yarn":
            values.setdefault("factor", longest / values[_ORIGINAL])
        return cls(rope_type=kind, **values)


def rotary_table(positions: int, head_dim: int, theta: float, scaling: RopeScaling | None = None) -> torch.Tensor:
    """Return cosines and sines, (2, positions, head_dim / 2) float32: one for each pair (i, i + head_dim / 2).

    RoFormer, arXiv 2104.09864, section 3.4.2; the halves are in Hugging Face's order: no weight is ever permuted.
    """
    import torch

    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    length = 1.0
    if scaling is not None:
        frequencies, length = _slowed(frequencies, theta, scaling)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    return torch.stack((angles.cos(), angles.sin())) * length


def _slowed(frequencies: torch.Tensor, theta: float, scaling: RopeScaling) -> tuple[torch.Tensor, float]:
    """The scaled frequencies, and what cosines and sines are multiplied by."""
    if scaling.rope_type == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.rope_type == "llama3":
        return llama3_frequencies(frequencies, scaling), 1.0
    if scaling.rope_type == "yarn":
        return _yarn(frequencies, theta, scaling), _yarn_attention_factor(scaling)
    return frequencies, 1.0


def llama3_frequencies(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """The frequencies (head_dim / 2,) as Llama 3.1 slows them."""
    low, high, context = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position_embeddings
    assert low is not None and high is not None and context is not None  # noqa: S101, PT018 - `from_hf` sees to it
    turns = context * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)  # share of the original frequency
    return kept * frequencies + (1 - kept) * frequencies / scaling.factor


def _yarn(frequencies: torch.Tensor, theta: float, scaling: RopeScaling) -> torch.Tensor:
    import torch

    context, pairs = scaling.original_max_position_embeddings, len(frequencies)
    assert context is not None  # noqa: S101 - `from_hf` sees to it

    def pair_with(turns: float) -> float:
        """The number of the pair that makes so many turns within the original context."""
        return pairs * math.log(context / (turns * 2 * math.pi)) / math.log(theta)

    low, high = pair_with(scaling.beta_fast or 32), pair_with(scaling.beta_slow or 1)
    if scaling.truncate is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    if low == high:
        high += 0.001  # as transformers has it: a step between two pairs
    slowed = ((torch.arange(pairs, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return slowed * frequencies / scaling.factor + (1 - slowed) * frequencies


def _yarn_attention_factor(scaling: RopeScaling) -> float:
    def growth(weight: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return growth(scaling.mscale) / growth(scaling.mscale_all_dim)
    return growth(1.0)


def _refusal(problem: str, hint: str | None, where: str) -> RunFolderError:
    return RunFolderError(problem, where=where, hint=hint)
