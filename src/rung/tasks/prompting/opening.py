"""From the name of a model to something that answers: a local decoder or an endpoint, by scoring or by generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rung.data.cache import LOCAL_ANSWERS, cache_folder
from rung.errors import UsageError
from rung.tasks.prompting.cache import ResponseCache
from rung.tasks.prompting.costs import Price, Spending
from rung.tasks.prompting.endpoint import Endpoint, EndpointOptions
from rung.tasks.prompting.judging import EndpointJudge, Judge, LocalJudge, WritingJudge
from rung.tasks.prompting.kept import KeptJudge
from rung.tasks.prompting.predicting import llm_cache
from rung.tasks.prompting.target import parse_target
from rung.tasks.prompting.templates import Prompt

By = Literal["scoring", "generation"]


@dataclass(frozen=True)
class OpenedModel:
    """A judge, how it counts the tokens it reads (None: a server counts), and what it is, for the report."""

    judge: Judge
    count_tokens: Callable[[Prompt, str], int] | None
    facts: dict[str, Any]
    spending: Spending | None = None


def open_model(
    target: str,
    *,
    label_names: tuple[str, ...],
    by: By | None = None,
    chat: bool = False,
    bf16: bool = False,
    price: Price | None = None,
    max_cost: float | None = None,
    say: Callable[[str], None],
) -> OpenedModel:
    """Open `target`: an endpoint's URL, or whatever `rung.tasks.bases.resolve_base` takes.

    Answers are kept in the cache, so a question that was asked before is not asked again.

    `by` None: a local model by scoring, an endpoint by generation, which is all that it offers. `chat`: put questions
    by the local model's chat template. Raises UsageError for wishes that contradict each other, RunFolderError or
    TokenizerError for a model that cannot be opened, EndpointError.
    """
    longest = max(len(name.encode()) for name in label_names)
    options = EndpointOptions()
    options = replace(options, max_tokens=max(options.max_tokens, longest // 2))
    where = parse_target(target) if "://" in target else target
    if isinstance(where, str | Path):
        if price is not None or max_cost is not None:
            raise UsageError("a model on this machine has no price", where="--price", hint="leave it out")
        return _local(str(where), by or "scoring", chat=chat, bf16=bf16, max_tokens=options.max_tokens, say=say)
    if by == "scoring":
        raise UsageError(
            "an endpoint does not tell how likely given labels are", where="--by", hint="leave it out: by generation"
        )
    if chat or bf16:
        raise UsageError(
            "--chat and --precision are for a model on this machine", hint="an endpoint decides for itself"
        )
    spending = Spending(price, max_cost)
    endpoint = Endpoint(where, cache=ResponseCache(llm_cache(), say), spending=spending, options=options)
    facts = {
        "model": f"{where.url}#{endpoint.model}",
        "by": "generation",
        "chat": True,
        "data_leaves_machine": not where.is_local,
    }
    return OpenedModel(EndpointJudge(endpoint), None, facts, spending)


def _local(target: str, by: By, *, chat: bool, bf16: bool, max_tokens: int, say: Callable[[str], None]) -> OpenedModel:
    from rung.tasks.bases import base_record, resolve_base
    from rung.tasks.prompting.local_model import LocalModel  # late: it imports torch

    folder = resolve_base(target)
    model = LocalModel(folder, chat=chat, bf16=bf16)
    judge: Judge = (LocalJudge if by == "scoring" else WritingJudge)(model, max_tokens=max_tokens)
    record = base_record(folder)
    facts = {
        "model": record["name"],
        "weights_sha256": record["weights_sha256"],
        "licence": record["licence"],
        "parameters": model.num_parameters,
        "by": by,
        "chat": chat,
        "precision": "bf16" if bf16 and by == "scoring" else "fp32",
        "data_leaves_machine": False,
    }
    decides = {name: facts[name] for name in ("weights_sha256", "by", "chat", "precision")}
    kept = ResponseCache(cache_folder() / LOCAL_ANSWERS, say)
    judge = KeptJudge(judge, kept, {**decides, "max_tokens": max_tokens}, model.prompt_tokens)
    return OpenedModel(judge, lambda prompt, text: len(model.prompt_tokens(prompt, text)), facts)
