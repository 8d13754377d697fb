"""Label log-probabilities from a local generative folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from rung.errors import RunFolderError
from rung.nets.attention import KeyValueCache
from rung.nets.decoder import CausalLM
from rung.nets.weights import WEIGHTS
from rung.runfolder import file_sha256
from rung.tasks.language_model import load
from rung.tasks.prompting.judging import TooLongError


class LocalModel:
    """A decoder that scores labels. The work for a prompt's prefix is done once and shared by all its questions.

    Prefix, question and label are tokenised each by itself: they meet at a line end and before a space, where the
    usual pre-tokenizers cut anyway.
    """

    def __init__(self, folder: Path) -> None:
        """Load a run folder, a checkpoint or a Hugging Face folder. RunFolderError when there is no decoder in it."""
        self._model = load(folder)
        net = self._model.net
        if not isinstance(net, CausalLM):
            raise RunFolderError(
                "only a decoder is asked by prompts: other language models have no context to put examples into",
                where=str(folder),
                hint="name the folder of a decoder",
            )
        self._net = net.eval()
        self._tokenizer = self._model.tokenizer
        self._prefix = ""
        self._prefix_cache: KeyValueCache | None = None
        self.num_parameters = sum(parameter.numel() for parameter in self._net.parameters())

    @property
    def folder(self) -> Path:
        """Where the weights lie: a checkpoint's folder where a run's was given."""
        return self._model.folder

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights."""
        return file_sha256(self.folder / WEIGHTS)

    @property
    def context_length(self) -> int:
        """Tokens that prompt and label may have together."""
        return self._net.config.max_position_embeddings

    def count_tokens(self, text: str) -> int:
        """How many tokens `text` has."""
        return len(self._tokenizer.encode(text))

    @torch.inference_mode()
    def token_logprobs(self, prefix: str, question: str, continuations: Sequence[str]) -> list[list[float]]:
        """ln P of each token of each continuation after the end-of-text token, `prefix` and `question`.

        Raises TooLongError where prompt and longest continuation pass the context.
        """
        asked = self._tokenizer.encode(question)
        labels = [self._tokenizer.encode(continuation) for continuation in continuations]
        longest = max(map(len, labels))
        before = 1 + self.count_tokens(prefix)
        total = before + len(asked) + longest
        if total > self.context_length:
            raise TooLongError(f"{total:,} tokens with its prompt do not fit the context of {self.context_length:,}")
        shared = self._prefilled(prefix)
        one = self._fork(shared, 1, len(asked))
        first = self._next_logprobs(torch.tensor([asked]), one)[0, -1]
        found = [[float(first[tokens[0]])] for tokens in labels]
        if longest > 1:
            rows = [tokens[:-1] + [0] * (longest - len(tokens)) for tokens in labels]  # what pads is never looked at
            later = self._next_logprobs(torch.tensor(rows), self._fork(one, len(labels), longest - 1))
            for row, tokens in enumerate(labels):
                found[row] += [float(later[row, place, token]) for place, token in enumerate(tokens[1:])]
        return found

    def write(self, text: str, *, samples: int, temperature: float, max_tokens: int) -> list[str]:
        """Continue `text` up to the end of the line, with seeds 0, 1, 2 ... TooLongError where nothing can follow."""
        if (length := self.count_tokens(text)) >= self.context_length:
            raise TooLongError(f"{length:,} tokens do not fit the context of {self.context_length:,}")
        return [
            self._model.generate(text, temperature=temperature, max_tokens=max_tokens, seed=seed, stop=("\n",))[0].text
            for seed in range(samples)
        ]

    def _prefilled(self, prefix: str) -> KeyValueCache:
        if self._prefix_cache is None or prefix != self._prefix:
            tokens = torch.tensor([[self._tokenizer.eos_token_id, *self._tokenizer.encode(prefix)]])
            cache = KeyValueCache(self._net.config, 1, tokens.shape[1], dtype=self._net.compute_dtype)
            self._net.model(self._net.model.embed(tokens), None, cache)
            self._prefix, self._prefix_cache = prefix, cache
        return self._prefix_cache

    def _next_logprobs(self, tokens: torch.Tensor, cache: KeyValueCache) -> torch.Tensor:
        """(rows, time, vocabulary): log-probabilities of what follows each of `tokens` (rows, time)."""
        return torch.log_softmax(self._net(tokens, None, cache).double(), dim=-1)

    def _fork(self, cache: KeyValueCache, rows: int, room: int) -> KeyValueCache:
        """A copy of a one-row cache for `rows` rows, with room for `room` more tokens."""
        end = cache.longest
        fork = KeyValueCache(self._net.config, rows, end + room, dtype=cache.keys.dtype, device=cache.keys.device)
        fork.keys[:, :, :, :end] = cache.keys[:, :, :, :end]
        fork.values[:, :, :, :end] = cache.values[:, :, :, :end]
        fork.lengths += end
        fork.longest = end
        return fork
