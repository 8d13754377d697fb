"""Rotations of queries and keys, the key-value cache, and attention over it."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F

from rung.errors import GenerationError


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate `x` (..., head_dim) by cosines and sines of shape (..., head_dim / 2) that broadcast to its halves."""
    rotated: torch.Tensor = _Rotation.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return rotated


class _Rotation(torch.autograd.Function):
    """The gradient of a rotation is the rotation back: three passes over memory instead of autograd's nine."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, -sin), None, None


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = torch.chunk(x, 2, dim=-1)
    return torch.cat(
        (torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)), dim=-1
    )


# Query rows a product takes at a time; 64, 128 and 256 take 34.6, 32.5 and 35.4 ms where `_CpuCausalAttention` says 33.
_BLOCK = 128


class CachedShape(Protocol):
    """What a key-value cache must know of a network's configuration."""

    @property
    def num_hidden_layers(self) -> int: ...

    @property
    def num_key_value_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def max_position_embeddings(self) -> int: ...


class KeyValueCache:
    """Keys and values of the tokens already seen, in tensors of fixed size that steps write into.

    Row `i` holds `lengths[i]` tokens in slots 0 .. lengths[i] - 1, so rows may differ in length. To start a batch, pad
    prompts on the *right*, pass `mask` (batch, time), and take row `i`'s scores at `mask[i].sum() - 1`; what padding
    wrote is overwritten by the next tokens and never attended to. A step then passes one token (batch, 1), no mask.

    `keys`, `values`: (layers, batch, kv heads, capacity, head_dim). `lengths`: (batch,) int64. `longest`: an upper
    bound of `lengths` known without reading the tensor; attention looks at the first `longest` slots only.
    `ragged`: whether a mask was ever given, so that rows may differ.
    """

    def __init__(
        self,
        config: CachedShape,
        batch_size: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make room for `capacity` tokens a row. GenerationError if the network knows fewer positions than that."""
        if capacity > config.max_position_embeddings:
            raise GenerationError(
                f"{capacity} tokens do not fit this network's {config.max_position_embeddings} positions",
                hint="shorten the prompt or ask for fewer tokens",
            )
        shape = (config.num_hidden_layers, batch_size, config.num_key_value_heads, capacity, config.head_dim)
        # Zeros, not empty: masked slots enter products with weight 0, and 0 x NaN would be NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.longest = 0
        self.ragged = False

    @property
    def capacity(self) -> int:
        """Slots a row."""
        return self.keys.shape[3]

    def positions(self, time: int) -> torch.Tensor:
        """Return the positions of the next `time` tokens of each row: (batch, time), or (1, time) when rows agree."""
        if self.ragged:
            return self.lengths[:, None] + torch.arange(time, device=self.lengths.device)
        return torch.arange(self.longest, self.longest + time, device=self.lengths.device)[None]

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values (batch, kv heads, time, head_dim) and return all up to the longest row's end."""
        end = self.longest + keys.shape[2]
        if end > self.capacity:
            raise GenerationError(f"the key-value cache holds {self.capacity} tokens, {end} were given")
        if self.ragged:
            rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
            self.keys[layer][rows, :, positions] = keys.transpose(1, 2)
            self.values[layer][rows, :, positions] = values.transpose(1, 2)
        else:
            self.keys[layer, :, :, self.longest : end] = keys
            self.values[layer, :, :, self.longest : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, time: int, mask: torch.Tensor | None) -> None:
        """Count `time` new tokens a row, or, with a right-padded `mask` (batch, time), as many as are real."""
        if mask is None:
            self.lengths += time
        else:
            self.lengths += mask.sum(dim=1)
            self.ragged = True
        self.longest += time


def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attend to this and earlier positions. q (batch, heads, time, head_dim); k, v may have fewer heads (GQA)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled() and q.requires_grad:
        mixed: torch.Tensor = _CpuCausalAttention.apply(q, k, v)  # type: ignore[no-untyped-call]
        return mixed
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


class _CpuCausalAttention(torch.autograd.Function):
    """Torch's fused forward with a backward of our own: blocks of query rows, products and a recomputed softmax.

    In bfloat16 (batch x heads 96, time 256, head_dim 64, one core with AMX) torch's backward takes 82-91 ms, this one
    33 ms; keeping the probabilities instead of recomputing them takes 24-28 ms but moves 8 ms into the forward pass and
    makes memory quadratic in time. With SmolLM2's 9 and 3 heads, 4 x 512 tokens and two threads, forward and backward
    take 74 ms where torch's take 152; in float32 it is 160 against 120, so there torch's stays.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(q, k, v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v = ctx.saved_tensors
        batch, kv_heads, time, head_dim = k.shape
        groups = q.shape[1] // kv_heads
        scale = head_dim**-0.5
        q, gradient = (part.reshape(batch * kv_heads, groups, time, head_dim) for part in (q * scale, gradient))
        k, v = (part.reshape(batch * kv_heads, time, head_dim) for part in (k, v))
        future = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool, device=q.device).triu(1)
        k_gradient, v_gradient, q_gradients = torch.zeros_like(k), torch.zeros_like(v), []
        for start in range(0, time, _BLOCK):
            end = min(start + _BLOCK, time)
            # The query heads of a group share keys: their rows form one product.
            rows, incoming = (part[:, :, start:end].flatten(1, 2) for part in (q, gradient))
            seen, values = k[:, :end], v[:, :end]
            scores = torch.bmm(rows, seen.mT).view(-1, groups, end - start, end)
            scores[..., start:end].masked_fill_(future[: end - start, : end - start], float("-inf"))
            weights = scores.softmax(-1).flatten(1, 2)
            # d scores = weights * (d weights - sum of weights * d weights): torch's own, one pass over memory.
            inner = torch._softmax_backward_data(torch.bmm(incoming, values.mT), weights, -1, weights.dtype)
            q_gradients.append((torch.bmm(inner, seen) * scale).view(-1, groups, end - start, head_dim))
            k_gradient[:, :end] += torch.bmm(inner.mT, rows)
            v_gradient[:, :end] += torch.bmm(weights.mT, incoming)
        shape = (batch, kv_heads, time, head_dim)
        q_gradient = torch.cat(q_gradients, dim=2).view(batch, groups * kv_heads, time, head_dim)
        return q_gradient, k_gradient.view(shape), v_gradient.view(shape)


def masked_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
    """Attend where `allowed` (batch or 1, 1, queries, keys) is true, or everywhere; shapes as in `causal_attention`."""
    groups = q.shape[1] // k.shape[1]
    if q.shape[2] == 1 and groups > 1:
        # One token a row: the query heads of a group become the rows of one product, and nothing is repeated.
        grouped = q.reshape(q.shape[0], k.shape[1], groups, q.shape[3])
        return F.scaled_dot_product_attention(grouped, k, v, attn_mask=allowed).reshape(q.shape)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=groups > 1)


class Reading:
    """One forward pass: where each token stands, which others it sees, and the cache, if there is one.

    `positions` (batch or 1, time) count from the beginning of each token's own text.
    """

    def __init__(
        self,
        embedded: torch.Tensor,
        mask: torch.Tensor | None,
        cache: KeyValueCache | None,
        *,
        max_positions: int,
        window: int | None = None,
    ) -> None:
        """Take `embedded` (batch, time, hidden) and the `mask` and state of `Decoder.forward`, or of a body like it.

        `window`: a token sees itself and the `window` - 1 before it. GenerationError for more tokens than
        `max_positions`, or for several documents in a row of a cache.
        """
        time = embedded.shape[1]
        if time > max_positions:
            raise GenerationError(
                f"{time} tokens do not fit this network's {max_positions} positions", hint="shorten the text"
            )
        if cache is not None and mask is not None and bool((mask > 1).any()):
            raise GenerationError(
                "a key-value cache holds one document a row, the mask numbers several", hint="give each its own row"
            )
        self.cache = cache
        before = 0 if cache is None else cache.longest
        narrow = window is not None and before + time > window
        self.allowed: torch.Tensor | None = None
        self._causal = before == 0 and mask is None and not narrow
        if cache is None and mask is not None:
            self.allowed = allowed_keys(mask)
            self.positions = self.allowed.sum(-1)[:, 0] - 1  # as many as came before in the same document
            if narrow and window is not None:
                self.allowed = self.allowed.triu(1 - window)
            return
        arange = torch.arange(time, device=embedded.device)[None]
        self.positions = arange if cache is None else cache.positions(time)
        one_for_all = time == 1 and (cache is None or not cache.ragged)
        if narrow or not (self._causal or one_for_all):
            self.allowed = allowed_slots(self.positions, before + time, window)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Mix the values that each query sees, those in the cache of `layer` included: (batch, time, heads x head_dim).

        q (batch, heads, time, head_dim); k and v may have fewer heads.
        """
        if self.cache is not None:
            k, v = self.cache.write(layer, k, v, self.positions)
        mixed = causal_attention(q, k, v) if self._causal else masked_attention(q, k, v, self.allowed)
        return mixed.transpose(1, 2).flatten(2)


def allowed_keys(mask: torch.Tensor) -> torch.Tensor:
    """Return (batch, 1, time, time): who may see whom under `mask` (batch, time), 0 for padding, k > 0 for document k.

    A token sees the earlier tokens of its own document and itself; padding sees itself only, so that no row is empty.
    """
    time = mask.shape[1]
    numbers = mask.long()
    causal = torch.ones(time, time, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(time, dtype=torch.bool, device=mask.device)
    same_document = (numbers[:, :, None] == numbers[:, None, :]) & (numbers > 0)[:, None, :]
    return ((same_document & causal) | itself)[:, None]


def allowed_slots(positions: torch.Tensor, slots: int, window: int | None = None) -> torch.Tensor:
    """Return (batch or 1, 1, time, slots): a token at position p sees slots 0 .. p, the last `window` of them."""
    behind = positions[:, :, None] - torch.arange(slots, device=positions.device)
    allowed = behind >= 0
    if window is not None:
        allowed &= behind < window
    return allowed[:, None]
