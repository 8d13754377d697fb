"""`rung eval`: how well a model predicts a text, in bits per byte, or a classifier the labels of a table."""

from __future__ import annotations

from pathlib import Path

import typer

from rung.cli.options import Json, Run, Texts, Threads, examples
from rung.cli.threads import settle_threads
from rung.errors import UsageError

_EXAMPLES = examples(
    "rung eval runs/my_texts                       # on the validation text held out in training",
    "rung eval runs/my_texts other_texts/",
    "rung eval runs/my_texts other.txt --json",
    "rung eval smollm2 other.txt                   # a base, by its name or its .gguf file",
    "rung eval runs/compare-tickets/rungs/linear new_tickets.csv        # a classifier, on labelled data",
    "rung eval runs/en-de test.csv                 # a translator, on pairs; or on two aligned files",
    "rung eval runs/my_bert text.txt               # pseudo-likelihood: each token guessed from both sides",
    "rung eval runs/names test.conll               # a tagger, on tagged sentences: F1 of entities",
    "rung eval runs/my_vectors word_similarity_sets/     # word vectors, on similarity and analogy sets",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("eval", epilog=_EXAMPLES, short_help="Measure a model: text, or labelled data.")(evaluate)


def evaluate(run: Run, texts: Texts = None, threads: Threads = None, as_json: Json = False) -> None:
    """Measure how well a model predicts a text: bits per byte with an interval, beside gzip, bzip2 and xz.

    Without TEXT: the validation text that was held out in training. Bits per byte of the source text can be compared
    between any two models, whatever their tokenizers; perplexity cannot.
    """
    from rung.tasks.bases import find_model
    from rung.tasks.loading import holds_word_vectors, is_classifier, is_masked_language_model, is_rewriter, is_tagger

    run = find_model(run)
    if holds_word_vectors(run):
        from rung.cli.vector_reports import evaluate_vectors

        evaluate_vectors(run, texts or [], as_json=as_json)
        return
    if is_rewriter(run):
        from rung.cli.rewriting import evaluate_rewriter

        evaluate_rewriter(run, texts or [], threads, as_json=as_json)
        return
    if is_masked_language_model(run):
        from rung.cli.masked import evaluate_masked

        evaluate_masked(run, texts or [], threads, as_json=as_json)
        return
    if is_tagger(run):
        from rung.cli.tagging import evaluate_tagger

        evaluate_tagger(run, texts or [], threads, as_json=as_json)
        return
    if is_classifier(run):
        _evaluate_classifier(run, texts or [], threads, as_json=as_json)
        return
    settle_threads()
    from rung.cli.console import print_json, results, watching
    from rung.cli.reports import show_bits_per_byte
    from rung.tasks import language_modelling

    with watching(as_json=as_json) as watcher:
        summary = language_modelling.evaluate(run, texts or (), threads=threads, progress=watcher)
    if as_json:
        print_json(summary.to_json())
    else:
        what = "this text" if texts else "the text held out in training"
        show_bits_per_byte(results(), summary.bits_per_byte, summary.floors, of=what)


def _evaluate_classifier(run: Path, files: list[Path], threads: int | None, *, as_json: bool) -> None:
    """Quality of a classifier on labelled tables."""
    from rung.cli.console import print_json, results, watching
    from rung.tasks.classification.using import evaluate_classifier

    if not files:
        raise UsageError("there is no labelled data to measure on", hint=f"rung eval {run} labelled.csv")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with watching(as_json=as_json) as watcher:
        found = evaluate_classifier(run, files, progress=watcher)
    if as_json:
        print_json(found.to_json())
        return
    console = results()
    for record in found.records:
        console.print(str(record), markup=False)
    for label, count in found.unseen_labels.items():
        console.print(f"{count:,} rows are left out: this classifier has never seen the label '{label}'", markup=False)
