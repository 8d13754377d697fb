"""What every run of a language model begins with: where it runs, a plan, a folder, and the text it was planned on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rung.data.tokenizer import Tokenizer
from rung.errors import RunFolderError, UsageError
from rung.progress import Progress
from rung.recipe import Recipe
from rung.tasks.ranked_training import Session
from rung.tasks.run import Run
from rung.tasks.text_preparation import PreparedText, is_counted, matrix_rows, prepare_text, read_corpus
from rung.training.machine import this_machine
from rung.training.ngram.plan import NgramPlan, plan_ngram
from rung.training.plan import Plan, make_plan
from rung.training.precision import bf16_is_faster
from rung.training.timing import step_timer


def plan_and_tell(wanted: Recipe, text: PreparedText, deadline: float | None, session: Session) -> Plan | NgramPlan:
    """Plan a network, or the counting of n-grams, and say so."""
    made = _plan_counting if is_counted(wanted) else plan_network
    planned = made(wanted, text, deadline, session)
    for line in planned.lines():
        session.progress.say(line)
    return planned


def _plan_counting(wanted: Recipe, text: PreparedText, deadline: float | None, session: Session) -> NgramPlan:
    """Plan counting until `deadline` at most. Raises UsageError where several processes would count the same."""
    if session.world.size > 1:
        raise UsageError("n-grams are counted by one process", hint="leave torchrun out")
    machine = this_machine(threads=wanted.training.threads)
    left = None if deadline is None else deadline - time.monotonic()
    return plan_ngram(wanted, text.facts(text.tokenizer.vocab_size), machine, seconds=left)


def plan_network(wanted: Recipe, text: PreparedText, deadline: float | None, session: Session) -> Plan:
    """Plan for the time until `deadline`, or for the recipe's steps without reading a clock."""
    world = session.world
    machine = this_machine(threads=wanted.training.threads, ranks=world.size, ranks_here=world.size_here)
    torch.set_num_threads(machine.threads)
    facts = text.facts(matrix_rows(wanted, text.tokenizer))
    if deadline is None:
        made = make_plan(wanted, facts, machine, seconds=None, timer=None)
    else:
        machine = replace(machine, bf16=machine.bf16 and bf16_is_faster(world.device))
        is_bf16 = machine.bf16 if wanted.training.precision is None else wanted.training.precision == "bf16"
        optimizer = wanted.training.optimizer or "muon"
        timer = step_timer(optimizer, torch.bfloat16 if is_bf16 else torch.float32, world.device)
        made = make_plan(wanted, facts, machine, seconds=max(1.0, deadline - time.monotonic()), timer=timer)
    return made


def start_run(
    folder: Path, made: Plan | NgramPlan, text: PreparedText, *, parent: dict[str, Any] | None, **more: Any
) -> None:
    """Write the plan, `more` entries of the header, and the tokenizer: from here on the run can be resumed."""
    run = Run.create(folder, recipe=made.recipe, plan=made.to_json(), data=_describe(text), parent=parent)
    run.header |= more
    text.tokenizer.save(folder, model_max_length=made.config.max_length)
    run.write("planned")


def _describe(text: PreparedText) -> dict[str, Any]:
    """What `rung.json` says about the data."""
    report = text.corpus.report
    return {
        "sha256": text.corpus.sha256,
        "train_sha256": text.train.sha256,
        "valid_sha256": text.valid.sha256,
        "tokenizer_sha256": text.tokenizer.sha256,
        "train_bytes": text.train.num_bytes,
        "valid_bytes": text.valid.num_bytes,
        "train_tokens": text.train.num_tokens,
        "valid_tokens": text.valid.num_tokens,
        "train_documents": text.train.num_documents,
        "valid_documents": text.valid.num_documents,
        "report": report.to_json(),
    }


def same_text(run: Run, progress: Progress) -> PreparedText:
    """The run's text, prepared as it was. Raises RunFolderError when it is not the same any more."""
    corpus = read_corpus(run.recipe, progress)
    if corpus.sha256 != run.header["data"]["sha256"]:
        raise RunFolderError(
            "the text has changed since this run was planned, so going on would not be the same run",
            where=", ".join(run.recipe.text.files),
            hint="bring the old text back, or train anew: rung train ...",
        )
    text = prepare_text(run.recipe, progress, corpus=corpus, tokenizer=Tokenizer.load(run.folder))
    if text.tokenizer.sha256 != run.header["data"]["tokenizer_sha256"]:
        raise RunFolderError("the tokenizer is not the one this run was planned with", where=str(run.folder))
    return text
