"""Back-off n-gram language models: counted, stored as a tree of sorted arrays, read through memory maps.

Level k holds every n-gram of k tokens that was kept. The children of an n-gram - those that begin with it and have one
token more - lie side by side at the next level, sorted by their last token, so an n-gram is found by one binary search
a token and all that may follow a context is a slice. Each n-gram stores the logarithm of its last token's probability
given the others (as in ARPA files: already interpolated with all lower orders), and as a context its back-off weight:

    log p(w | h) = logprob(h w)                          where h w was kept
                 = backoff(h) + log p(w | h without its first token)    else

Nothing but numpy is imported. `rung.training.ngram` estimates these models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.errors import RunFolderError
from rung.runfolder import readable_write_errors, write_json

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MODEL_TYPE = "rung-ngram"
MAX_ORDER = 16
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
_DAMAGED = "the folder is damaged: use another copy of it, or train again"
_WINDOW = 8_192  # inputs that are scored at a time: 16 such rows take some megabytes an order
_LONGEST_TEXT = 1 << 20  # written or read in one go; no limit of the model's


@dataclass(frozen=True)
class NgramConfig:
    """The shape of an n-gram model; `num_ngrams[k - 1]` n-grams have k tokens."""

    order: int
    vocab_size: int
    eos_token_id: int
    num_ngrams: tuple[int, ...]

    @property
    def model_type(self) -> str:
        """The family's name in `config.json`."""
        return MODEL_TYPE

    @property
    def max_length(self) -> int:
        """Tokens that prompt and text may have together: no limit of the model's, but one for an endless text."""
        return _LONGEST_TEXT

    @property
    def num_parameters(self) -> int:
        """Stored probabilities and back-off weights."""
        return sum(self.num_ngrams) + sum(self.num_ngrams[:-1])


@dataclass(frozen=True)
class NgramLevel:
    """All n-grams of one length, sorted; the unigrams are the whole vocabulary in the order of the ids.

    `tokens` (n-grams,) the last token of each (empty for unigrams: the place is the token); `logprobs` (n-grams,)
    float32, natural logarithms. Empty at the highest order: `backoffs` (n-grams,) float32, and `first_child`
    (n-grams + 1,): the children of number i are first_child[i] .. first_child[i + 1] - 1 of the next level.
    """

    tokens: NDArray[np.unsignedinteger[Any]]
    logprobs: NDArray[np.float32]
    backoffs: NDArray[np.float32]
    first_child: NDArray[np.uint32]


class NgramModel:
    """An n-gram language model over token ids. It is its own `TokenScorer` (see `rung.evaluation.scoring`)."""

    def __init__(self, levels: Sequence[NgramLevel], *, eos_token_id: int) -> None:
        """Take the levels from the unigrams up."""
        self.levels = tuple(levels)
        counts = tuple(len(level.logprobs) for level in levels)
        self.config = NgramConfig(len(levels), counts[0], eos_token_id, counts)

    def begin(self, rows: int) -> Ints:
        """Return the state (rows, longest context) before any token: no context at all."""
        return np.full((rows, max(1, self.config.order - 1)), -1, dtype=np.int64)

    def advance(self, state: Ints, tokens: Ints) -> Ints:
        """Return the state after one more token (rows,) each: column k is the number, at its level, of the n-gram of
        the last k + 1 tokens, or -1 where it was never seen.
        """
        result = np.full_like(state, -1)
        result[:, 0] = tokens
        for k in range(1, self.config.order - 1):
            result[:, k] = self._find(k, state[:, k - 1], tokens)
        return result

    def next_logprobs(self, state: Ints) -> Floats:
        """Return (rows, vocabulary): the log-probability of every token after each `state`."""
        result = np.repeat(self.levels[0].logprobs[None].astype(np.float64), len(state), axis=0)
        for row, contexts in enumerate(state):
            for k in range(self.config.order - 1):
                if contexts[k] < 0:
                    break
                level, longer = self.levels[k], self.levels[k + 1]
                children = slice(*level.first_child[contexts[k] : contexts[k] + 2].tolist())
                result[row] += level.backoffs[contexts[k]]
                result[row, longer.tokens[children]] = longer.logprobs[children]
        return result

    def logprobs(self, input_ids: Ints, labels: Ints) -> Floats:
        """Return (scored,): the log-probability of each label that is not negative, row by row.

        Both are (batch, time); `labels[i, t]` is the token that follows `input_ids[i, t]`. Each row stands alone.
        """
        scored = labels >= 0
        wanted = labels[scored]
        result = self.levels[0].logprobs[wanted].astype(np.float64)
        contexts = input_ids
        for k in range(self.config.order - 1):
            if k:
                before = np.full_like(contexts, -1)
                before[:, 1:] = contexts[:, :-1]
                contexts = self._find(k, before.ravel(), input_ids.ravel()).reshape(input_ids.shape)
            known = contexts[scored]
            seen = np.flatnonzero(known >= 0)
            result[seen] += self.levels[k].backoffs[known[seen]]
            places = self._find(k + 1, known, wanted)
            found = np.flatnonzero(places >= 0)
            result[found] = self.levels[k + 1].logprobs[places[found]]
        return result

    def _find(self, k: int, parents: Ints, tokens: Ints) -> Ints:
        """Return (n,) the numbers at level `k` of the n-grams `parents` (n,) of level k - 1 with `tokens` (n,) added.

        -1 where there is none. All binary searches take their steps together.
        """
        first, children = self.levels[k - 1].first_child, self.levels[k].tokens
        result = np.full(len(parents), -1, dtype=np.int64)
        active = np.flatnonzero(parents >= 0)
        low, high = (first[parents[active] + place].astype(np.int64) for place in (0, 1))
        wanted = tokens[active]
        while len(active):
            searching = low < high
            active, low, high, wanted = active[searching], low[searching], high[searching], wanted[searching]
            middle = (low + high) >> 1
            there = children[middle]
            result[active[there == wanted]] = middle[there == wanted]
            low, high = np.where(there < wanted, middle + 1, low), np.where(there < wanted, high, middle)
            searching = there != wanted
            active, low, high, wanted = active[searching], low[searching], high[searching], wanted[searching]
        return result

    @property
    def context_length(self) -> int:
        """Inputs of the windows that a long text is measured in."""
        return _WINDOW

    @property
    def stride(self) -> int:
        """How far the windows slide, so that each token has all the context that the order can use."""
        return _WINDOW - self.config.order

    @property
    def max_length(self) -> int:
        """The longest window that can be read."""
        return self.config.max_length

    @property
    def precision(self) -> str:
        """What log-probabilities are added up in; they are stored as float32."""
        return "float64"

    def measuring(self) -> AbstractContextManager[None]:
        """Nothing has to hold while it is measured."""
        return nullcontext()

    def token_nll(self, input_ids: Ints, labels: Ints) -> Floats:
        """Return (scored,): -ln of the probability of each label that is not negative, row by row."""
        return -self.logprobs(input_ids, labels)


def save_ngram(model: NgramModel, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` into the existing `folder`.

    Raises RunFolderError when the disk is full or not writable.
    """
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(array) for name, array in _named(model.levels)}
    write_json(folder / _CONFIG, {"model_type": MODEL_TYPE, **asdict(model.config)})
    with readable_write_errors(folder / _WEIGHTS):
        save_file(tensors, folder / _WEIGHTS, metadata={"format": "np"})


def load_ngram(folder: Path) -> NgramModel:
    """Open a model that `save_ngram` wrote; its arrays stay on disk and are read where they are needed.

    Raises RunFolderError when a file is missing, damaged or contradicts the other.
    """
    config = _read_config(folder / _CONFIG)
    path = folder / _WEIGHTS
    arrays = _mapped(path)
    levels = []
    for k, count in enumerate(config.num_ngrams, start=1):
        try:
            levels.append(NgramLevel(*(arrays[f"{name}.{k}"] for name in _ARRAYS)))
        except KeyError as error:
            raise RunFolderError(f"{_WEIGHTS} lacks {error}", where=str(path), hint=_DAMAGED) from error
        following = config.num_ngrams[k] if k < config.order else None
        if not _is_sound(levels[-1], count, following, config.vocab_size, is_first=k == 1):
            raise RunFolderError(f"the {k}-grams in {_WEIGHTS} are damaged", where=str(path), hint=_DAMAGED)
    return NgramModel(levels, eos_token_id=config.eos_token_id)


_ARRAYS = ("tokens", "logprobs", "backoffs", "first_child")


def _named(levels: Sequence[NgramLevel]) -> Iterator[tuple[str, NDArray[Any]]]:
    for k, level in enumerate(levels, start=1):
        yield from ((f"{name}.{k}", getattr(level, name)) for name in _ARRAYS)


def _read_config(path: Path) -> NgramConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("model_type") != MODEL_TYPE:
            raise RunFolderError("this is no n-gram model", where=str(path))
        config = NgramConfig(**(values | {"num_ngrams": tuple(values["num_ngrams"])}))
    except FileNotFoundError:
        raise RunFolderError(f"the folder has no {_CONFIG}", where=str(path.parent)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{_CONFIG} cannot be read ({error})", where=str(path), hint=_DAMAGED) from error
    numbers = (config.order, config.vocab_size, config.eos_token_id, *config.num_ngrams)
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or not (
        1 <= config.order == len(config.num_ngrams) and config.eos_token_id < config.vocab_size == config.num_ngrams[0]
    ):
        raise RunFolderError(f"the numbers in {_CONFIG} contradict each other", where=str(path), hint=_DAMAGED)
    return config


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file as memory maps; the library checks the header and would copy them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as checked:
            names = set(checked.keys())
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except FileNotFoundError:
        raise RunFolderError(f"the folder has no {_WEIGHTS}", where=str(path.parent)) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise RunFolderError(f"cannot read {_WEIGHTS}: {error}", where=str(path), hint=_DAMAGED) from error
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:
        entry = header[name]
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None or len(entry["shape"]) != 1:
            raise RunFolderError(f"{name} is no array of an n-gram model", where=str(path), hint=_DAMAGED)
        start, shape = 8 + size + int(entry["data_offsets"][0]), tuple(entry["shape"])
        # What is empty cannot be mapped.
        arrays[name] = np.memmap(path, dtype, "r", offset=start, shape=shape) if shape[0] else np.empty(0, dtype)
    return arrays


_DTYPES: dict[str, np.dtype[Any]] = {"U16": np.dtype("<u2"), "U32": np.dtype("<u4"), "F32": np.dtype("<f4")}


def _is_sound(level: NgramLevel, count: int, following: int | None, vocab_size: int, *, is_first: bool) -> bool:
    """Whether the arrays of a level have their sizes and lead nowhere outside the model; `following`: the n-grams of
    the next level, None at the highest order.
    """
    contexts = 0 if following is None else count
    lengths = (0 if is_first else count, count, contexts, contexts + (following is not None))
    arrays = (level.tokens, level.logprobs, level.backoffs, level.first_child)
    kinds = "".join(array.dtype.kind for array in arrays)
    if kinds != "uffu" or tuple(map(len, arrays)) != lengths:
        return False
    first = level.first_child
    return (
        int(level.tokens.max(initial=0)) < vocab_size
        and (following is None or bool(first[0] == 0 and first[-1] == following and (first[1:] >= first[:-1]).all()))
        and bool(np.isfinite(level.logprobs).all() and np.isfinite(level.backoffs).all())
    )
