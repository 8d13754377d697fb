"""`rung audit`: what a model has learned about groups of people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rung.cli.neighbours import Vectors
from rung.cli.options import Json, examples

if TYPE_CHECKING:
    from rung.audit.association import Association

_EXAMPLES = examples(
    "rung audit runs/my_texts --weat tests.json",
    "rung audit glove.6B.100d.txt --weat tests.json --test weat6 --test weat7 --json",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("audit", epilog=_EXAMPLES, short_help="Associations in word vectors (WEAT).")(audit)


def audit(
    run: Vectors,
    *,
    weat: Annotated[
        Path,
        typer.Option(
            "--weat",
            metavar="TESTS.json",
            help='Word lists: {"name": {"targ1": {"category": ..., "examples": [...]}, "targ2", "attr1", "attr2"}}.',
        ),
    ],
    test: Annotated[
        list[str] | None, typer.Option("--test", metavar="NAME", show_default=False, help="Only this test; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the drawn permutations.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure associations in word vectors by the Word Embedding Association Test (Caliskan et al. 2017).

    d > 0: the first targets stand nearer to the first attributes than the second targets do. p: the share of divisions
    of the target words that give as large a difference. It speaks of these vectors and these words only.
    """
    from rung.tasks.word_vectors.using import load_vectors

    vectors = load_vectors(run)
    from rung.audit.association import association, choose, read_tests

    found = [association(vectors, one, seed=seed) for one in choose(read_tests(weat), test or [])]
    if as_json:
        from rung.cli.console import print_json

        print_json({"run": str(run), "weat": [_plain(one) for one in found]})
        return
    _show(found)


def _plain(one: Association) -> dict[str, object]:
    return {
        "test": one.test.name,
        "targets": [words.category for words in one.test.targets],
        "attributes": [words.category for words in one.test.attributes],
        "effect_size": one.effect_size.model_dump(mode="json"),
        "p_value": one.p_value.model_dump(mode="json"),
        "missing": one.missing,
    }


def _show(found: list[Association]) -> None:
    from rich.table import Table

    from rung.cli.console import results

    console = results()
    table = Table(box=None, padding=(0, 2))
    for name, right in (("test", False), ("targets", False), ("attributes", False), ("d", True), ("p", True)):
        table.add_column(name, justify="right" if right else "left")
    table.add_column("words missing", justify="right")
    measured = [one for one in found if one.effect_size.value is not None]
    for one in measured:
        targets, attributes = (
            " / ".join(words.category for words in pair) for pair in (one.test.targets, one.test.attributes)
        )
        missing = sum(map(len, one.missing.values()))
        total = sum(len(words.words) for words in one.test.lists)
        p = one.p_value.value or 0.0
        shown = f"{p:.4f}" if p >= 0.0001 else "< 0.0001"
        table.add_row(
            one.test.name, targets, attributes, f"{one.effect_size.value:.2f}", shown, f"{missing} of {total}"
        )
    if measured:
        console.print(table)
    for one in found:
        if one.effect_size.value is None:
            console.print(f"{one.test.name}: not measured: {one.effect_size.not_measured}", markup=False)
    for one in measured:
        for category, words in one.missing.items():
            if words:
                console.print(f"{one.test.name}, {category}: unknown: {', '.join(words)}", markup=False)
