"""Answers sampled from a network, what they earn, and the objective that learns from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rung.data.chat_template import RenderedTokens
from rung.data.checkable import Problem, Problems
from rung.data.conversations import Message
from rung.data.order import SampleOrder
from rung.data.packing import PackedRows, TokenExamples
from rung.generation.engine import Engine, Generation
from rung.generation.matrices import Precision
from rung.generation.options import SamplingOptions
from rung.objectives.answers import answer_token_logprobs
from rung.objectives.group_relative import GroupRelative, advantages
from rung.objectives.loss import Loss
from rung.progress import SILENT, Progress
from rung.records import ItemScores
from rung.tasks.chat.preparation import ChatBase
from rung.tasks.chat.reward_recipe import RewardSection

_SEEDS = 2**32
_WRITTEN_AT_ONCE = 64  # answers; a place that becomes free is taken by the next that waits
_TOLD_EVERY = 4 * _WRITTEN_AT_ONCE


class ProblemBatches:
    """Problems by sample number: `problem` (batch,), drawn anew each epoch, and `draw` (batch,), the sample numbers."""

    def __init__(self, count: int, *, seed: int) -> None:
        self._order = SampleOrder(count, seed)

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """The samples of these numbers."""
        numbers = np.asarray(sample_numbers)
        return {"problem": torch.from_numpy(self._order.locate(numbers)[1]), "draw": torch.from_numpy(numbers.copy())}


@dataclass(frozen=True)
class Rollouts:
    """An objective that samples answers to the problems of a batch from the network itself, and learns which paid.

    The draws follow from (`seed`, sample number, number of the answer): an interrupted run samples the same answers.
    `reference`: the network that distance is measured from, where `wanted.beta` is above 0.
    """

    base: ChatBase
    problems: Problems
    wanted: RewardSection
    seed: int
    precision: Precision
    reference: Any = None

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss over all sampled answers, with the sums of `reward`, `solved`, `ended`, `tokens`, `compared`.

        Where all answers to a prompt earned the same there is nothing to learn (Yu et al. 2025, arXiv 2503.14476,
        section 3.2): only the others, `compared`, are read again.
        """
        asked, prompts, written = self._answers(net, batch)
        solved = torch.tensor([one.solved_by(answer.text) for one, answer in zip(asked, written, strict=True)])
        ended = torch.tensor([has_ended(answer, self.base) for answer in written])
        earned = (solved.float() + self.wanted.ended * ended.float()).view(-1, self.wanted.answers)
        apart = advantages(earned, normalised=self.wanted.normalised).flatten()
        differ = (earned.amax(1) > earned.amin(1)).repeat_interleave(self.wanted.answers)
        # A distance from the reference is kept from all answers; and a loss needs one to have a gradient, if zero.
        read = differ.nonzero()[:, 0].tolist() if not self.wanted.beta else list(range(len(written)))
        read = read or [0]
        rows = answer_rows([prompts[number] for number in read], [written[number] for number in read], self.base)
        device = next(net.parameters()).device
        learned = {name: tensor.to(device) for name, tensor in rows.collate(range(len(rows))).items()}
        learned["advantages"] = (apart * differ)[read].to(device)
        if self.reference is not None:
            learned["reference"] = _token_scores(self.reference, learned)
        loss = GroupRelative(self.wanted.max_tokens, self.wanted.beta)(net, learned)
        tokens = torch.tensor(sum(len(answer.token_ids) for answer in written))
        sums = {"reward": earned.sum(), "solved": solved.sum(), "ended": ended.sum(), "compared": differ.sum()}
        metrics = {name: one.to(device) for name, one in {**sums, "tokens": tokens}.items()}
        return Loss(loss.total, torch.tensor(len(written), device=device), loss.metrics | metrics)

    def _answers(
        self, net: Any, batch: Mapping[str, torch.Tensor]
    ) -> tuple[list[Problem], list[list[int]], list[Generation]]:
        """A group of answers to each problem of a batch: the problem, the prompt's tokens and what was written."""
        group = self.wanted.answers
        asked = [self.problems.items[number] for number in batch["problem"].tolist() for _ in range(group)]
        options = [
            SamplingOptions(
                temperature=self.wanted.temperature,
                max_tokens=self.wanted.max_tokens,
                seed=(self.seed * _SEEDS + draw * group + number) % 2**64,
                stop_tokens=(self.base.end_of_turn,),
            )
            for draw in batch["draw"].tolist()
            for number in range(group)
        ]
        prompts, written = sampled(net, self.base, asked, options, precision=self.precision)
        return asked, prompts, written


def sampled(
    net: Any,
    base: ChatBase,
    problems: Sequence[Problem],
    options: SamplingOptions | Sequence[SamplingOptions],
    *,
    precision: Precision,
    progress: Progress = SILENT,
) -> tuple[list[list[int]], list[Generation]]:
    """The tokens of each prompt, and what `net` answers. GenerationError when a prompt leaves no room for an answer."""
    was_training = net.training
    net.eval()
    engine = Engine(net, base.tokenizer, precision=precision, max_batch=_WRITTEN_AT_ONCE)
    prompts = [base.template.render_prompt((Message("user", one.prompt),), base.tokenizer) for one in problems]
    each = [options] * len(prompts) if isinstance(options, SamplingOptions) else list(options)
    written: list[Generation] = []
    with progress.task("answering", len(prompts), "answers") as advance:
        for start in range(0, len(prompts), _TOLD_EVERY):
            stop = start + _TOLD_EVERY
            written += engine.generate(prompts[start:stop], each[start:stop])
            advance(len(prompts[start:stop]))
    net.train(was_training)
    return prompts, written


def has_ended(answer: Generation, base: ChatBase) -> bool:
    """Whether the network ended its turn itself."""
    return answer.token_ids[-1] == base.end_of_turn


def answer_rows(prompts: Sequence[list[int]], written: Sequence[Generation], base: ChatBase) -> PackedRows:
    """Each answer after its prompt in a row of its own, the answer's tokens labelled."""
    rendered = [
        RenderedTokens([*prompt, *answer.token_ids], [False] * len(prompt) + [True] * len(answer.token_ids))
        for prompt, answer in zip(prompts, written, strict=True)
    ]
    examples = TokenExamples.of(rendered)
    rows = PackedRows(examples, context_length=int(examples.lengths.max()), pad_token_id=base.tokenizer.eos_token_id)
    rows.rows = [[number] for number in range(len(rendered))]
    return rows


@torch.no_grad()
def _token_scores(net: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(rows, time) the log-probability of each label under `net`; 0 where there is none."""
    logprobs, row, time = answer_token_logprobs(net, batch)
    scores = logprobs.new_zeros(batch["labels"].shape)
    scores[row, time] = logprobs
    return scores


def solved_shares(
    net: Any, base: ChatBase, problems: Problems, wanted: RewardSection, *, precision: Precision, progress: Progress
) -> tuple[ItemScores, ItemScores, list[str]]:
    """Which problems a greedy answer solves, which turns it ends, and the answers."""
    options = SamplingOptions(temperature=0, max_tokens=wanted.max_tokens, stop_tokens=(base.end_of_turn,))
    _, written = sampled(net, base, problems.items, options, precision=precision, progress=progress)
    ids, ones = [one.id for one in problems.items], np.ones(len(problems))
    solved = [one.solved_by(answer.text) for one, answer in zip(problems.items, written, strict=True)]
    ended = [has_ended(answer, base) for answer in written]
    return (
        ItemScores(ids, np.array(solved, dtype=np.float64), ones),
        ItemScores(ids, np.array(ended, dtype=np.float64), ones),
        [answer.text for answer in written],
    )
