"""From sources to targets with an encoder-decoder, many at a time, each as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from rung.errors import GenerationError, UsageError
from rung.generation.beam_search import BeamOptions, Hypothesis, search
from rung.generation.matrices import Precision
from rung.generation.options import SamplingOptions
from rung.generation.sampling import Sampler
from rung.generation.target_rules import TargetRules
from rung.generation.target_steps import not_finite, target_steps
from rung.nets.encoder_decoder_folder import SequenceNet

T = TypeVar("T")

_GREEDY = SamplingOptions(temperature=0)
_BEAMS = BeamOptions()


class SequenceToSequence:
    """Writes targets, as tokens, for sources, as tokens that end with the end token as in training.

    Sources of similar length are read together, and who is finished leaves the batch. A target depends on its source,
    options and seed, not on what else is in the batch, up to rounding. It ends at `max_tokens` or where the network's
    context does. Sources that do not fit the network are refused, and so are empty ones: nothing of them is cut off.
    """

    def __init__(
        self,
        net: SequenceNet,
        *,
        precision: Precision = "fp32",
        batch_size: int = 64,
        vocab_size: int | None = None,
        rules: TargetRules | None = None,
    ) -> None:
        """Copy the weights of `net` into the form that decoding wants.

        `batch_size`: sources written for at the same time. `vocab_size`: how many tokens the tokenizer knows, where
        the network knows more for the sake of round numbers: only those are written. `rules`: what else holds for
        targets; by default that padding never occurs, and that the last token is the end token, as in Marian.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}", where="batch_size")
        self._net = net
        self._steps = target_steps(net, precision)
        self._batch_size = batch_size
        config = net.config
        if rules is None:
            rules = TargetRules(config.decoder_start_token_id, config.eos_token_id, (config.pad_token_id,))
        beyond = range(config.vocab_size if vocab_size is None else vocab_size, config.vocab_size)
        self._rules = replace(rules, never=(*rules.never, *beyond))

    @property
    def context_length(self) -> int:
        """Tokens that a source may have, the end token included; and a target."""
        return self._net.config.max_position_embeddings

    def search(
        self,
        sources: Sequence[Sequence[int]],
        options: BeamOptions = _BEAMS,
        *,
        limits: Sequence[int] | None = None,
    ) -> list[list[Hypothesis]]:
        """Search with beams; return all `num_beams` hypotheses of each source, best first.

        `limits`: tokens that each source's targets may have, where that is less than `max_tokens`. GenerationError for
        a source that is empty or longer than the context, or scores that are not finite.
        """
        self._check(sources)
        longest = min(options.max_tokens, self.context_length)
        most = [longest if limits is None else max(1, min(limits[number], longest)) for number in range(len(sources))]

        def write(batch: list[int]) -> list[list[Hypothesis]]:
            return search(
                self._steps,
                [sources[number] for number in batch],
                [most[number] for number in batch],
                options,
                self._rules,
                device=self._device,
            )

        return self._in_batches(sources, write)

    def write(
        self, sources: Sequence[Sequence[int]], options: SamplingOptions | Sequence[SamplingOptions] = _GREEDY
    ) -> list[Hypothesis]:
        """Write token by token: the likeliest (temperature 0, the default), or drawn; `options` for all or one each.

        Draws depend on an option's seed and the position alone. Stop strings belong to text, so they are refused here.
        Errors as in `search`; UsageError for stop strings.
        """
        each = [options] * len(sources) if isinstance(options, SamplingOptions) else list(options)
        if len(each) != len(sources):
            raise GenerationError(f"{len(sources)} sources and {len(each)} options", hint="give one for each source")
        if any(chosen.stop for chosen in each):
            raise UsageError("stop strings mean nothing to an encoder-decoder", hint="leave them out", where="stop")
        self._check(sources)
        return self._in_batches(
            sources,
            lambda batch: self._write([sources[number] for number in batch], [each[number] for number in batch]),
        )

    @property
    def _device(self) -> torch.device:
        return self._net.lm_head.weight.device

    def _check(self, sources: Sequence[Sequence[int]]) -> None:
        for number, source in enumerate(sources):
            if not 0 < len(source) <= self.context_length:
                problem = f"the source has {len(source):,} tokens, the network reads from 1 to {self.context_length:,}"
                raise GenerationError(problem, where=f"source {number + 1}", hint="split it, or leave it out")

    @torch.inference_mode()
    def _in_batches(self, sources: Sequence[Sequence[int]], write: Callable[[list[int]], list[T]]) -> list[T]:
        """Sources in order of length, so that little is padded; results in the order of the sources."""
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        results: dict[int, T] = {}
        training = self._net.training
        self._net.eval()
        try:
            for first in range(0, len(order), self._batch_size):
                batch = order[first : first + self._batch_size]
                results.update(zip(batch, write(batch), strict=True))
        finally:
            self._net.train(training)
        return [results[number] for number in range(len(sources))]

    def _write(self, sources: Sequence[Sequence[int]], options: Sequence[SamplingOptions]) -> list[Hypothesis]:
        rules, device, vocab_size = self._rules, self._device, self._net.config.vocab_size
        longest = [min(chosen.max_tokens, self.context_length) for chosen in options]
        written: list[list[int]] = [[] for _ in sources]
        logprobs = [0.0] * len(sources)
        active, last = list(range(len(sources))), [rules.start] * len(sources)
        self._steps.open(sources, 1)
        sampler = Sampler(options, vocab_size, device)
        while active:
            scores = self._steps.step(torch.tensor(last, device=device)[:, None])
            histories = [written[number] for number in active]
            scores = rules.apply(scores, torch.tensor(histories, dtype=torch.int64))
            choices = sampler.choose(scores, [len(history) for history in histories], histories)
            for number, token, logprob in zip(active, choices.token_ids, choices.logprobs, strict=True):
                if not math.isfinite(logprob):
                    raise not_finite()
                forced = rules.forced_end and len(written[number]) + 1 == longest[number]
                written[number].append(rules.end if forced else token)
                logprobs[number] += 0.0 if forced else logprob
            going = [written[number][-1] != rules.end and len(written[number]) < longest[number] for number in active]
            places = [place for place, goes in enumerate(going) if goes]
            last = [written[active[place]][-1] for place in places]
            if len(places) < len(active):
                active = [active[place] for place in places]
                sampler = Sampler([options[number] for number in active], vocab_size, device)
                self._steps.keep(torch.tensor(places, dtype=torch.int64, device=device))
        return [
            Hypothesis(
                tokens, logprob, logprob, tokens[-1] == rules.end and (len(tokens) < most or not rules.forced_end)
            )
            for tokens, logprob, most in zip(written, logprobs, longest, strict=True)
        ]
