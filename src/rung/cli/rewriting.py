"""What `rung predict` and `rung eval` do with a network that rewrites texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rung.cli.terminal import write
from rung.cli.threads import settle_threads
from rung.data.tables import TABLE_KINDS
from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.tasks.rewriting.rewriter import Rewriter


def rewrite(
    run: Path,
    texts: list[str],
    source: Path | None,
    output: Path | None,
    *,
    columns: list[str] | None,
    beams: int | None,
    best: int | None,
    prefix: str | None,
    as_json: bool,
) -> None:
    """Rewrite texts, the lines of a text file, or a column of a table. A single text that names a file is that file."""
    if source is None and len(texts) == 1 and Path(texts[0]).is_file():
        source = Path(texts[0])
    settle_threads()
    if source is None:
        if not texts:
            raise UsageError("there is nothing to rewrite", hint="give a text, or a file: --input new.txt")
        if output is not None:
            raise UsageError("--output is for a file", hint="name the file with --input")
        _texts(_opened(run, prefix), texts, beams, best or 1, as_json=as_json)
    elif best is not None:
        raise UsageError("--best is for single texts", hint="leave it out")
    elif _is_table(source):
        if output is None:
            raise UsageError("where the table goes is missing", hint="give --output rewritten.csv")
        _table(_opened(run, prefix), source, output, columns, beams, as_json=as_json)
    else:
        _lines(_opened(run, prefix), source, output, beams, as_json=as_json)


def evaluate_rewriter(run: Path, files: list[Path], threads: int | None, *, as_json: bool) -> None:
    """BLEU and chrF, or ROUGE where targets are long, on pairs of texts."""
    settle_threads()
    from rung.cli.console import print_json, results, watching
    from rung.tasks.rewriting.evaluating import evaluate

    with watching(as_json=as_json) as watcher:
        found = evaluate(run, files, threads=threads, progress=watcher)
    if as_json:
        print_json(found.to_json())
        return
    console = results()
    for line in (*map(str, found.records), *found.remarks):
        console.print(line, markup=False)


def _opened(run: Path, prefix: str | None) -> Rewriter:
    """The network of `run`; `prefix` None: what it was tuned with."""
    from rung.tasks.rewriting.rewriter import load_rewriter

    rewriter = load_rewriter(run)
    if prefix is not None:
        rewriter.prefix = prefix
    return rewriter


def _is_table(path: Path) -> bool:
    from rung.data.read import COMPRESSIONS, KINDS

    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    return KINDS.get(suffixes[-1] if suffixes else "") in TABLE_KINDS


def _texts(rewriter: Rewriter, texts: list[str], beams: int | None, best: int, *, as_json: bool) -> None:
    from rung.cli.console import print_json

    found = rewriter.rewrite_many(texts, beams=beams, best=best)
    if as_json:
        print_json({"run": str(rewriter.folder), "predictions": [[vars(one) for one in some] for some in found]})
        return
    for some in found:
        for one in some:
            write(f"{one.text if best == 1 else f'{one.score:8.3f}  {one.text}'}\n", sys.stdout)


def _lines(rewriter: Rewriter, source: Path, output: Path | None, beams: int | None, *, as_json: bool) -> None:
    from rung.cli.console import print_json, watching
    from rung.runfolder import write_text
    from rung.tasks.rewriting.using import rewrite_lines

    with watching(as_json=as_json) as watcher:
        written = list(rewrite_lines(rewriter, source, beams=beams, progress=watcher))
    if output is not None:
        write_text(output, "".join(f"{line}\n" for line in written))
    if as_json:
        print_json({"output": None if output is None else str(output), "lines": len(written)})
    elif output is None:
        for line in written:
            write(f"{line}\n", sys.stdout)
    else:
        typer.echo(f"{len(written):,} lines in {output}")


def _table(
    rewriter: Rewriter, source: Path, output: Path, columns: list[str] | None, beams: int | None, *, as_json: bool
) -> None:
    from rung.cli.console import print_json, watching
    from rung.tasks.rewriting.using import rewrite_table

    with watching(as_json=as_json) as watcher:
        done = rewrite_table(rewriter, source, output, text_columns=columns, beams=beams, progress=watcher)
    bad = sum(done.problems.values())
    if as_json:
        print_json({"output": str(output), "rows": done.rows, "not_rewritten": dict(done.problems)})
        return
    typer.echo(f"{done.rows:,} rows in {output}, {bad:,} of them without a prediction")
    for reason, count in done.problems.most_common():
        typer.echo(f"  {count:,}: {reason}")
