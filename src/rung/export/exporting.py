"""Exporting: write, compare, write the card, and only then give the folder its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rung.errors import UsageError
from rung.export.report import Comparison, ExportReport
from rung.progress import SILENT, Progress
from rung.runfolder import new_folder, write_text
from rung.tasks.run import CARD, require_empty

if TYPE_CHECKING:
    from rung.export.source import Source

Format = Literal["hf", "gguf", "onnx"]
Dtype = Literal["f32", "f16", "bf16", "q8_0"]


def export_model(
    run: str | Path,
    folder: str | Path,
    *,
    to: Format = "hf",
    dtype: Dtype | None = None,
    verify: bool = True,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write the model of `run` - a run folder, a model folder or a base - into the new `folder` in another format.

    "hf": a Hugging Face folder without anything of Rung's, weights in `dtype` (default: as they are). "gguf":
    `model.gguf` for llama.cpp, matrices in `dtype` (default f16). "onnx": `model.onnx` for onnxruntime, of encoders and
    classic networks, in f32. Adapters are merged. With `verify`, every program that can read the result and is
    installed is compared with Rung on the run; the outcome is in the report and in the card either way.

    Raises UsageError for a format that has no place for the network, TokenizerError for its tokenizer, RunFolderError
    when the model is damaged, EvaluationError when the result does not say what the run says: then nothing is written.
    """
    from rung.export.card import export_card
    from rung.export.source import open_source

    folder = Path(folder)
    require_empty(folder, hint="give another --out, or remove what is there")
    if to == "hf" and dtype == "q8_0":
        raise UsageError("transformers has no q8_0", hint="--to gguf, or --dtype f32, f16 or bf16")
    with open_source(run) as source, new_folder(folder) as writing:
        with progress.task(f"writing {to}", None, "files") as advance:
            report = _write(source, writing, folder, to, dtype)
            advance(len(report.files))
        if verify:
            with progress.task("comparing with other readers", None, "readers") as advance:
                report = replace(report, comparisons=_compare(source, writing, report))
                advance(len(report.comparisons))
        write_text(writing / CARD, export_card(source, report))
        return replace(report, files=_files(writing))


def export_word_vectors(run: str | Path, folder: str | Path) -> ExportReport:
    """Write the word vectors of `run` into the new `folder` as `vectors.txt`, word2vec's text, and read them back.

    Raises UsageError when the folder is not empty, RunFolderError when the run holds no word vectors.
    """
    from rung.tasks.word_vectors.using import export_vectors, load_vectors

    folder = Path(folder)
    require_empty(folder, hint="give another --out, or remove what is there")
    with new_folder(folder) as writing:
        file = writing / "vectors.txt"
        vectors, read = export_vectors(run, file), load_vectors(file)
        difference = float(abs(vectors.vectors - read.vectors).max())
        compared = Comparison(
            "Rung",
            largest_difference=difference,
            largest_score=float(abs(vectors.vectors).max()),
            same_choice=float(vectors.words == read.words),
            scored=len(vectors),
        )
        dropped = ("vectors of n-grams have no place in this format",) if vectors.subwords is not None else ()
        return ExportReport(folder, "word2vec", "f32", {file.name: file.stat().st_size}, dropped, (compared,))


def _write(source: Source, writing: Path, folder: Path, to: Format, dtype: Dtype | None) -> ExportReport:
    """Write the files of the model itself; the report names `folder`, where they will be."""
    notes: tuple[str, ...] = ()
    if to == "gguf":
        from rung.export.gguf import write_gguf

        written: str = dtype or "f16"
        notes = write_gguf(source, writing, written)
    elif to == "onnx":
        from rung.export.onnx import write_onnx

        written = "f32"
        notes = write_onnx(source, writing, dtype)
    else:
        from rung.export.hugging_face import write_hugging_face

        written = write_hugging_face(source, writing, dtype)
    if source.unfinished:
        unfinished = f"THE RUN IS NOT FINISHED ({source.unfinished}): these are the weights of its newest checkpoint"
        notes = (unfinished, *notes)
    return ExportReport(folder, to, written, _files(writing), notes)


def _files(folder: Path) -> dict[str, int]:
    """The bytes of each file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _compare(source: Source, writing: Path, report: ExportReport) -> tuple[Comparison, ...]:
    if report.to == "onnx":
        from rung.export.onnx_verify import compare_onnx

        return (compare_onnx(source, writing),)
    from rung.export.verify import compare_export

    return compare_export(source, writing, report.to, report.dtype)
