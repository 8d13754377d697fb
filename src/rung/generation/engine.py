"""The engine: requests in, texts out, many at a time, each as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from rung.data.stream_decoder import StreamDecoder
from rung.data.tokenizer import Tokenizer
from rung.errors import GenerationError, UsageError
from rung.generation.matrices import Precision
from rung.generation.options import SamplingOptions
from rung.generation.prefix_cache import PrefixCache
from rung.generation.sampling import Sampler
from rung.generation.stopping import TextStream
from rung.generation.token_decoder import ExtendingDecoder, token_decoder

FinishReason = Literal["stop", "length"]
"""stop: an end-of-text token or a stop string. length: `max_tokens`, or the network's context was full."""
Prompt = str | Sequence[int]
"""Text, whose spelling of a special token is mere text; or the tokens themselves, as a chat template gives them."""


_DEFAULT = SamplingOptions()


@dataclass(frozen=True)
class Piece:
    """One token of a text while it is written, with the text that became certain with it (perhaps none).

    `logprob` is the natural logarithm of the token's probability under the network, before temperature and filters.
    `finish_reason` is set on the last piece.
    """

    text: str
    token_id: int
    logprob: float
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Generation:
    """What came of one prompt.

    `text` ends before a stop string; `token_ids` and `logprobs` hold every token that was chosen, also the end-of-text
    token or those of the stop string. `prompt_tokens` counts the tokens that the network read as the prompt.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    prompt_tokens: int


class Engine:
    """Generates text with one network and its tokenizer.

    Prompts that are longer than the context are refused; a text ends (finish_reason "length") when prompt and text
    together fill the context: nothing is cut off or forgotten on the way. An empty prompt starts from the end-of-text
    token, which is what stands before each document in training.

    One call at a time: an engine holds the state (keys and values, say) of the texts it is writing, so a new call ends
    a stream that is still open. A text depends on its prompt, options and seed, not on what else is in the batch:
    scores are the same up to rounding, or with `invariant` to the last bit.
    """

    def __init__(
        self,
        net: Any,
        tokenizer: Tokenizer,
        *,
        precision: Precision = "fp32",
        invariant: bool = False,
        max_batch: int = 16,
    ) -> None:
        """Bring `net`, a language model of any kind, into the form that decoding wants; see `token_decoder`.

        `invariant`: scores have the same bits whatever else is in the batch (slower; see `FusedDecoder`). `max_batch`:
        texts written at the same time; more prompts wait for a place. GenerationError if the tokenizer does not fit.
        """
        if max_batch < 1:
            raise UsageError(f"max_batch must be at least 1, not {max_batch}", where="max_batch")
        self._decoder = token_decoder(net, precision, invariant=invariant)
        self._invariant = invariant
        if tokenizer.vocab_size > self._decoder.vocab_size:
            raise GenerationError(
                f"the tokenizer has {tokenizer.vocab_size:,} tokens, the network knows {self._decoder.vocab_size:,}",
                hint="use the tokenizer that belongs to this network",
            )
        self._tokenizer = tokenizer
        self._max_batch = max_batch
        self._end_ids = self._decoder.end_token_ids | {tokenizer.eos_token_id}
        self._current: Sequence[_Request] = ()  # those of the call that the decoder's rows belong to

    @property
    def context_length(self) -> int:
        """Tokens that prompt and text may have together."""
        return self._decoder.context_length

    def prefix_cache(self, max_texts: int = 1) -> PrefixCache | None:
        """A cache for `stream` that remembers the last `max_texts` texts; None where every text is read from its start.

        That is so with `invariant`, which promises equal bits, and with networks whose state cannot be cut: recurrent
        ones, and those that see the last few tokens only.
        """
        if max_texts < 1:
            raise UsageError(f"max_texts must be at least 1, not {max_texts}", where="max_texts")
        if self._invariant or not isinstance(self._decoder, ExtendingDecoder):
            return None
        return PrefixCache(self._decoder, max_texts)

    def generate(
        self, prompts: str | Sequence[Prompt], options: SamplingOptions | Sequence[SamplingOptions] = _DEFAULT
    ) -> list[Generation]:
        """Continue each prompt; `options` are for all of them, or one for each.

        GenerationError when a prompt does not fit the context, or the network's scores are not finite.
        """
        texts: list[Prompt] = [prompts] if isinstance(prompts, str) else list(prompts)
        each = [options] * len(texts) if isinstance(options, SamplingOptions) else list(options)
        if len(each) != len(texts):
            raise GenerationError(f"{len(texts)} prompts and {len(each)} options", hint="give one for each prompt")
        requests = [self._request(text, chosen) for text, chosen in zip(texts, each, strict=True)]
        for _ in self._run(requests):
            pass
        return [request.result() for request in requests]

    def stream(
        self, prompt: Prompt, options: SamplingOptions = _DEFAULT, prefixes: PrefixCache | None = None
    ) -> Iterator[Piece]:
        """Continue `prompt`, one piece a token; all texts joined equal `generate`'s text. Errors as in `generate`.

        `prefixes`, from `prefix_cache`: what the text has in common with those is not read again; it is then kept
        there itself, as far as it was written, also when nobody asks for its end.
        """
        if prefixes is not None and prefixes.decoder is not self._decoder:
            raise UsageError("this prefix cache belongs to another engine", hint="ask this one for its own")
        request = self._request(prompt, options)  # at once, so that errors come before the first piece is asked for
        return self._stream([request], prefixes)

    def _stream(self, requests: Sequence[_Request], prefixes: PrefixCache | None) -> Iterator[Piece]:
        """Write the one request."""
        try:
            for _, piece in self._run(requests, prefixes):
                yield piece
        finally:
            written = requests[0]
            # As long as the rows are this call's, they hold all tokens but the one chosen last.
            if prefixes is not None and self._current is requests and written.logprobs:
                prefixes.keep(written.tokens[:-1], 0)

    def _request(self, prompt: Prompt, options: SamplingOptions) -> _Request:
        tokens = self._tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else list(prompt)
        tokens = tokens or [self._tokenizer.start_token_id]
        if len(tokens) >= self.context_length:
            raise GenerationError(
                f"the prompt has {len(tokens):,} tokens; the network's context of {self.context_length:,} has no room "
                "for it and one more token",
                hint="shorten the prompt",
            )
        return _Request(tokens, options, TextStream(StreamDecoder(self._tokenizer), options.stop), len(tokens))

    @torch.inference_mode()  # as a decorator, so that the caller's own code between two pieces is outside of it
    def _run(
        self, requests: Sequence[_Request], prefixes: PrefixCache | None = None
    ) -> Iterator[tuple[_Request, Piece]]:
        """Write all texts, at most `max_batch` at a time; whoever ends makes room for the next who waits."""
        self._current = requests
        waiting = list(requests)
        active: list[_Request] = []
        needed = max((request.last_length(self.context_length) for request in requests), default=0)
        self._decoder.open(min(len(waiting), self._max_batch), needed)
        sampler: Sampler | None = None  # for `active`, as long as it stays the same
        while waiting or active:
            if self._current is not requests:
                raise GenerationError(
                    "this stream was ended by another call to the same engine",
                    hint="finish one before the next, or make an engine for each",
                )
            if waiting and len(active) < self._max_batch:
                room = self._max_batch - len(active)
                joining, waiting = waiting[:room], waiting[room:]
                scores = self._read([request.tokens for request in joining], len(active), prefixes)
                yield from self._choose(scores, joining, self._sampler(joining))
                active, sampler = [*active, *joining], None
            else:
                sampler = sampler or self._sampler(active)
                scores = self._decoder.step([r.tokens[-1] for r in active], [len(r.tokens) - 1 for r in active])
                yield from self._choose(scores, active, sampler)
            if any(request.finish_reason for request in active):
                active, sampler = self._close(active), None

    def _read(self, prompts: Sequence[list[int]], first_row: int, prefixes: PrefixCache | None) -> torch.Tensor:
        if prefixes is None:
            return self._decoder.prefill(prompts, first_row)
        return torch.cat([prefixes.read(prompt, row) for row, prompt in enumerate(prompts, start=first_row)])

    def _sampler(self, requests: Sequence[_Request]) -> Sampler:
        options = [request.options for request in requests]
        return Sampler(options, self._tokenizer.vocab_size, self._decoder.device)

    def _choose(
        self, scores: torch.Tensor, requests: Sequence[_Request], sampler: Sampler
    ) -> Iterator[tuple[_Request, Piece]]:
        histories = [request.tokens for request in requests] if sampler.needs_history else None
        choices = sampler.choose(scores, [len(request.tokens) for request in requests], histories)
        for request, token, logprob in zip(requests, choices.token_ids, choices.logprobs, strict=True):
            yield request, request.accept(token, logprob, self._end_ids, self.context_length)

    def _close(self, active: list[_Request]) -> list[_Request]:
        """Drop the requests that ended; the cache's last rows move into their places."""
        remaining = list(active)
        for row in range(len(remaining) - 1, -1, -1):
            if remaining[row].finish_reason is not None:
                if row < len(remaining) - 1:
                    self._decoder.move(len(remaining) - 1, row)
                    remaining[row] = remaining[-1]
                remaining.pop()
        return remaining


@dataclass
class _Request:
    """A text being written."""

    tokens: list[int]
    options: SamplingOptions
    stream: TextStream
    prompt_tokens: int
    text: str = ""
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def last_length(self, context_length: int) -> int:
        """How many tokens prompt and text can have together."""
        return min(self.prompt_tokens + self.options.max_tokens, context_length)

    def accept(self, token: int, logprob: float, end_ids: frozenset[int], context_length: int) -> Piece:
        """Take the next token, and see whether the text ends with it."""
        if not math.isfinite(logprob):
            raise GenerationError(
                f"the network's scores are not finite after {len(self.tokens):,} tokens",
                hint="the weights may be damaged: try another checkpoint",
            )
        self.tokens.append(token)
        self.logprobs.append(logprob)
        text = self.stream.push(token)
        if token in end_ids or token in self.options.stop_tokens or self.stream.stopped:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.last_length(context_length):
            self.finish_reason = "length"
        if self.finish_reason is not None:
            text += self.stream.finish()
        self.text += text
        return Piece(text, token, logprob, self.finish_reason)

    def result(self) -> Generation:
        """The finished text."""
        assert self.finish_reason is not None  # noqa: S101 - asked for at the end only
        return Generation(
            self.text, self.tokens[self.prompt_tokens :], self.logprobs, self.finish_reason, self.prompt_tokens
        )
