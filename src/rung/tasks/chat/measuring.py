"""How good a chat model is on held-out conversations: the loss of answers, and whether it ends its turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rung.data.chat_template import ChatTemplate
from rung.data.conversations import Conversation
from rung.data.packing import PackedRows
from rung.data.tokenizer import Tokenizer
from rung.evaluation.intervals import interval
from rung.evaluation.proportions import wilson
from rung.evaluation.rouge import rouge_scores
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.objectives.answers import answer_logprobs
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record

ANSWER_LOSS, TURNS_ENDED, ROUGE_L, EXACT = "answer_loss", "turns_ended", "answer_rougeL", "answer_exact_match"
_ENGINE_ROWS = 16


@dataclass(frozen=True)
class Answer:
    """What a model answered to a held-out prompt: `ended` by an end of turn, not by a limit."""

    conversation: Conversation
    text: str
    ended: bool


@torch.no_grad()
def answer_losses(
    net: Any, rows: PackedRows, ids: Sequence[str], *, batch_size: int, progress: Progress = SILENT, label: str = ""
) -> ItemScores:
    """Nats of each conversation's answers, weighed by their tokens; `ids` name the examples of `rows`."""
    was_training = net.training
    net.eval()
    device = next(net.parameters()).device
    values, weights = np.zeros(len(ids)), np.zeros(len(ids))
    with progress.task(label or "measuring held-out answers", len(rows), "rows") as advance:
        for start in range(0, len(rows), batch_size):
            numbers = range(start, min(start + batch_size, len(rows)))
            members = [rows.rows[number] for number in numbers]
            batch = {name: tensor.to(device) for name, tensor in rows.collate(numbers).items()}
            sums, counts = answer_logprobs(net, batch, max(map(len, members)))
            for place, items in enumerate(members):
                values[items] = -sums[place, : len(items)].double().cpu().numpy()
                weights[items] = counts[place, : len(items)].cpu().numpy()
            advance(len(members))
    net.train(was_training)
    return ItemScores(list(ids), values, weights)


def loss_record(scores: ItemScores, *, data_sha256: str, name: str = ANSWER_LOSS) -> Record:
    """The mean over all answer tokens, with its interval over conversations."""
    return Record(
        name=name,
        value=scores.mean,
        unit="nats/token",
        n=len(scores.ids),
        interval=interval(scores),
        signature="cross-entropy of the tokens of answers, their end of turn included",
        data_sha256=data_sha256,
    )


def answer_prompts(
    engine: Engine,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    *,
    end_of_turn: int,
    max_tokens: int,
    progress: Progress = SILENT,
) -> list[Answer]:
    """The model's greedy answer to the last prompt of each conversation.

    GenerationError when a prompt leaves no room in the context.
    """
    options = SamplingOptions(temperature=0, max_tokens=max_tokens, stop_tokens=(end_of_turn,))
    answers: list[Answer] = []
    with progress.task("answering held-out prompts", len(conversations), "answers") as advance:
        for start in range(0, len(conversations), _ENGINE_ROWS):
            some = conversations[start : start + _ENGINE_ROWS]
            prompts = [template.render_prompt(one.prompt, tokenizer) for one in some]
            for one, written in zip(some, engine.generate(prompts, options), strict=True):
                answers.append(Answer(one, written.text.strip(), written.token_ids[-1] == end_of_turn))
            advance(len(some))
    return answers


def answer_records(
    answers: Sequence[Answer], *, data_sha256: str, max_tokens: int
) -> tuple[list[Record], dict[str, ItemScores]]:
    """How many turns were ended, and how near the answers come to those in the data: ROUGE-L and exact match."""
    ids = [answer.conversation.id for answer in answers]
    ones = np.ones(len(ids))
    ended = np.array([answer.ended for answer in answers], dtype=np.float64)
    wanted = [answer.conversation.answer for answer in answers]
    exact = [_plain(a.text) == _plain(text) for a, text in zip(answers, wanted, strict=True)]
    scores = {
        TURNS_ENDED: ItemScores(ids, ended, ones),
        ROUGE_L: rouge_scores(ids, [answer.text for answer in answers], wanted)["rougeL"],
        EXACT: ItemScores(ids, np.array(exact, dtype=np.float64), ones),
    }
    how = {
        TURNS_ENDED: f"share of greedy answers that end their turn within {max_tokens} tokens",
        ROUGE_L: "F1 of rouge-score 0.1.2 without stemming, greedy answers against those of the data",
        EXACT: "greedy answer equal to that of the data, but for case and white space",
    }
    records = [
        Record(
            name=name,
            value=one.mean,
            unit="F1" if name == ROUGE_L else "share",
            n=len(ids),
            interval=interval(one) if name == ROUGE_L else wilson(int(one.values.sum()), len(ids)),
            signature=how[name],
            data_sha256=data_sha256,
        )
        for name, one in scores.items()
    ]
    return records, scores


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
