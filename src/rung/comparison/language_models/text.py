"""Training, validation and test text of a comparison: cut once, so that every rung learns from and is asked the same.

Nothing alike stands in two parts: the corpus drops near-duplicates first, within the text and against validation and
test text that was given. Of a part that was not given, every document (a long text counts as many pieces of about 4 kB)
is drawn by a hash of its own content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rung.data.cache import cache_folder
from rung.data.corpus import Corpus, CorpusOptions, prepare_corpus
from rung.data.documents import Document
from rung.errors import DataError
from rung.progress import Progress
from rung.runfolder import readable_write_errors, write_json

Part = Literal["train", "valid", "test"]
_HELD_OUT = 0.05  # of the documents, for each part that was not given
_ACCOUNT = "text.json"


@dataclass(frozen=True)
class CutText:
    """Where each part is, and what is told of it; `facts` are plain JSON values."""

    train: Path
    valid: list[Path]
    test: list[Path]
    facts: dict[str, Any]


def cut_text(
    files: Sequence[Path], *, valid: Sequence[Path], test: Sequence[Path], folder: Path, seed: int, progress: Progress
) -> CutText:
    """Write the parts into `folder`, or find them there.

    Raises DataError when nothing can be read, or a part would be empty.
    """
    corpus = prepare_corpus(
        list(files),
        cache_dir=cache_folder(),
        valid_paths=[*valid, *test],
        options=CorpusOptions(valid_fraction=2 * _HELD_OUT, seed=seed),  # for both parts, if neither was given
        progress=progress,
    )
    account = folder / _ACCOUNT
    found = json.loads(account.read_text(encoding="utf-8")) if account.is_file() else {}
    if found.get("sha256") != corpus.sha256:
        found = _write(corpus, given_valid=bool(valid), given_test=bool(test), folder=folder, seed=seed)
        found |= {"files": [str(path) for path in files], "sha256": corpus.sha256}
        write_json(account, found)
    return CutText(
        folder / "train.jsonl", list(valid) or [folder / "valid.jsonl"], list(test) or [folder / "test.jsonl"], found
    )


def _write(corpus: Corpus, *, given_valid: bool, given_test: bool, folder: Path, seed: int) -> dict[str, Any]:
    """Write what was not given; the number of documents and bytes by part."""
    wanted: dict[Part, bool] = {"valid": not given_valid, "test": not given_test}
    missing = [part for part, is_missing in wanted.items() if is_missing]
    # Where neither was given, the corpus has held documents out by itself: those are shared by the two parts.
    own_split = len(missing) == 2
    parts: list[Part] = ["train", *missing]
    counts = {part: {"documents": 0, "bytes": 0} for part in parts}
    folder.mkdir(parents=True, exist_ok=True)
    with readable_write_errors(folder), ExitStack() as open_files:
        written: dict[str, Any] = {
            part: open_files.enter_context((folder / f"{part}.jsonl").open("w", encoding="utf-8")) for part in counts
        }
        for part, text, pieces in _passages(_assigned(corpus, missing, own_split=own_split, seed=seed)):
            written[part].write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            counts[part]["documents"] += pieces
            counts[part]["bytes"] += len(text.encode())
    for part, count in counts.items():
        if not count["documents"]:
            raise DataError(
                f"so little text that nothing is left for {part}",
                hint="give more text, or --valid and --test texts of your own",
            )
    return {"parts": counts}


def _assigned(
    corpus: Corpus, missing: Sequence[Part], *, own_split: bool, seed: int
) -> Iterator[tuple[Part, Document]]:
    """Every document that is not validation or test text given by the user, and the part that it is in."""
    drawn = _drawn(corpus, "train", _HELD_OUT, seed) if missing and not own_split else set()
    for document in corpus.documents("train"):
        yield (missing[0] if document.sha256 in drawn else "train"), document
    if own_split:
        drawn = _drawn(corpus, "valid", 0.5, seed)
        for document in corpus.documents("valid"):
            yield ("valid" if document.sha256 in drawn else "test"), document


def _drawn(corpus: Corpus, split: Literal["train", "valid"], share: float, seed: int) -> set[str]:
    """The hashes of a share of the documents, at least one: those with the smallest numbers."""
    hashes = sorted((document.sha256 for document in corpus.documents(split)), key=lambda name: _number(name, seed))
    return set(hashes[: max(1, round(share * len(hashes)))])


def _number(sha256: str, seed: int) -> str:
    """What a draw goes by: it depends on content and seed alone."""
    return hashlib.sha256(f"{seed} {sha256}".encode()).hexdigest()


def _passages(assigned: Iterable[tuple[Part, Document]]) -> Iterator[tuple[Part, str, int]]:
    """Join pieces that follow each other in their source and are in one part: (part, text, number of pieces)."""
    part: Part | None = None
    texts: list[str] = []
    for new_part, document in assigned:
        if texts and not (document.continues and new_part == part):
            yield part or "train", "".join(texts), len(texts)
            texts = []
        part = new_part
        texts.append(document.text)
    if texts:
        yield part or "train", "".join(texts), len(texts)
