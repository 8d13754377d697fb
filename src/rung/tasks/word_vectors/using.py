"""What word vectors are good for: loaded from a run or a file, measured, brought into and out of other formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.data.vector_files import FileFormat, read_vectors, write_vectors
from rung.data.word_sets import AnalogySet, SimilaritySet, read_word_set
from rung.errors import DataError, RunFolderError
from rung.nets.word_vectors import ModelType, WordVectors
from rung.progress import SILENT, Progress
from rung.runfolder import HEADER_NAME, file_sha256, verify, write_folder, write_text
from rung.tasks.bases import is_gguf
from rung.tasks.run import CARD, require_empty
from rung.version import __version__

if TYPE_CHECKING:
    from rung.evaluation.analogies import AnalogyResult
    from rung.evaluation.word_similarity import SimilarityResult

TASK = "word-vectors"
_SETS = (".csv", ".tsv", ".txt")


def load_vectors(path: str | Path) -> WordVectors:
    """Load the word vectors of a run folder, or of a file in word2vec's or GloVe's format.

    Raises RunFolderError when the folder is missing, damaged or holds something else, DataError for a broken file.
    """
    path = Path(path)
    if path.is_file():
        if is_gguf(path):
            raise RunFolderError("a GGUF file holds a network, and no word vectors", where=str(path))
        table = read_vectors(path)
        kind: ModelType = "rung-glove" if table.file_format == "glove" else "rung-word2vec"
        return WordVectors(table.words, table.vectors, model_type=kind, where=str(path))
    if not path.exists():
        raise RunFolderError("there are no word vectors here", where=str(path), hint="give a run folder or a file")
    header = verify(path)
    if header.get("task") != TASK:
        raise RunFolderError(
            "this run holds no word vectors",
            where=str(path / HEADER_NAME),
            hint="train some: rung train TEXT --net word2vec",
        )
    return WordVectors.load(path)


def import_vectors(file: str | Path, folder: str | Path) -> WordVectors:
    """Make a run folder of a file of word vectors. Raises DataError for a broken file, UsageError for a full folder."""
    file, folder = Path(file), Path(folder)
    require_empty(folder)
    vectors = load_vectors(file)
    sha256 = file_sha256(file)

    def fill(target: Path) -> None:
        vectors.save(target)
        write_text(target / CARD, _card(vectors, file.name, sha256))

    header = {
        "rung_version": __version__,
        "task": TASK,
        "state": "finished",
        "data": {"sha256": sha256, "imported_from": file.name},
    }
    write_folder(folder, fill, header)
    return vectors


def export_vectors(run: str | Path, file: str | Path, *, file_format: FileFormat | None = None) -> WordVectors:
    """Write word vectors so that other programs read them: `.bin` in word2vec's binary format, else in its text.

    Vectors of n-grams have no place in these formats and stay behind. Raises RunFolderError, DataError.
    """
    file = Path(file)
    vectors = load_vectors(run)
    if file_format is None:
        plain = file.with_suffix("") if file.suffix in {".gz", ".xz"} else file
        file_format = "word2vec-binary" if plain.suffix == ".bin" else "word2vec"
    write_vectors(file, vectors.words, vectors.vectors, file_format=file_format)
    return vectors


@dataclass(frozen=True)
class VectorEvaluation:
    """How word vectors do on similarity and analogy sets."""

    run: Path
    similarities: tuple[SimilarityResult, ...]
    analogies: tuple[AnalogyResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.run),
            "similarities": [
                {
                    **one.record.model_dump(mode="json"),
                    "pairs": one.pairs,
                    "covered": one.covered,
                    "composed": one.composed,
                }
                for one in self.similarities
            ],
            "analogies": [
                {
                    "accuracy": one.accuracy.model_dump(mode="json"),
                    "accuracy_of_all": one.accuracy_of_all.model_dump(mode="json"),
                    "sections": [record.model_dump(mode="json") for record in one.sections],
                }
                for one in self.analogies
            ],
        }


def evaluate_vectors(
    run: str | Path, sets: Sequence[str | Path], *, among: int | None = None, progress: Progress = SILENT
) -> VectorEvaluation:
    """Measure word vectors on every similarity and analogy set among the files and folders `sets`.

    `among`: in analogies only the first so many words count. Files of another kind in a folder are passed over. Raises
    DataError when there is no set, or a named file is none, and for broken rows.
    """
    from rung.evaluation.analogies import analogies
    from rung.evaluation.word_similarity import word_similarity

    tests = _tests([Path(one) for one in sets])
    vectors = load_vectors(run)
    similarities, found_analogies = [], []
    with progress.task("measuring", len(tests), "sets") as advance:
        for test in tests:
            if isinstance(test, SimilaritySet):
                similarities.append(word_similarity(vectors, test))
            else:
                found_analogies.append(analogies(vectors, test, among=among))
            advance(1)
    return VectorEvaluation(Path(run), tuple(similarities), tuple(found_analogies))


def _tests(paths: Sequence[Path]) -> list[SimilaritySet | AnalogySet]:
    found: list[SimilaritySet | AnalogySet] = []
    for path in paths:
        if not path.is_dir():
            if (test := read_word_set(path)) is None:
                raise DataError("this is no set of word pairs or analogies", where=str(path), hint=_FORM)
            found.append(test)
            continue
        files = sorted(file for file in path.rglob("*") if file.suffix in _SETS)
        found += [test for file in files if (test := read_word_set(file)) is not None]
    if not found:
        raise DataError("there is no set of word pairs or analogies here", where=", ".join(map(str, paths)), hint=_FORM)
    return found


_FORM = "rows of two words and a score, or a table with columns word1, word2, word3 and target"


def _card(vectors: WordVectors, name: str, sha256: str) -> str:
    return (
        f"# Word vectors\n\n{len(vectors):,} words, {vectors.vector_size} dimensions, taken from the file `{name}` "
        f"(SHA-256 {sha256}).\n\nOpen them with `rung neighbours`, `rung analogy`, `rung eval`, or in Python with "
        "`rung.load(folder)`.\n"
    )
