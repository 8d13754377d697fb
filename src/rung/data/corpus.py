"""The corpus: files in, cleaned, deduplicated and split documents out, cached on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rung.data.cache import KEPT_SECONDS, remove_prepared
from rung.data.documents import Document, excerpt
from rung.data.fates import DROP_REASONS, TRAIN, VALID, DocumentIndex, Flags, Ints, decide_fates
from rung.data.read import find_files
from rung.data.report import CorpusReport
from rung.data.segmenting import MadeSegments, SegmentMaker
from rung.data.segments import VERSION, Segment, read_cached
from rung.errors import DataError, UsageError
from rung.progress import SILENT, Progress
from rung.runfolder import write_folder

Split = Literal["train", "valid"]


@dataclass(frozen=True)
class CorpusOptions:
    """How text is prepared.

    text_column: the column of tables that holds the text; None: text, content, body, or the only text column.
    valid_fraction: share of documents held out, in (0, 1). near_duplicate_threshold: Jaccard similarity of word
    5-grams from which two documents count as one; 1 leaves only equal sets. piece_bytes: about how long the documents
    are that long texts are cut into. seed: of the split.
    """

    text_column: str | None = None
    valid_fraction: float = 0.05
    near_duplicate_threshold: float = 0.8
    piece_bytes: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.valid_fraction < 1:
            raise UsageError(f"valid_fraction is {self.valid_fraction}, it must lie between 0 and 1")
        if not 0.5 <= self.near_duplicate_threshold <= 1:
            raise UsageError(
                f"near_duplicate_threshold is {self.near_duplicate_threshold}, it must lie in 0.5 to 1",
                hint="below 0.5 the lookup by MinHash would miss most pairs",
            )
        if not 256 <= self.piece_bytes <= 1 << 20:
            raise UsageError(f"piece_bytes is {self.piece_bytes}, it must lie in 256 to 1048576")


@dataclass(frozen=True)
class Selection:
    """The documents of one split in source order; all arrays have its length.

    continues[i]: document i directly follows document i - 1 of this selection in their source.
    """

    segment_index: npt.NDArray[np.int32]
    document_index: npt.NDArray[np.int32]
    continues: Flags


@dataclass(frozen=True)
class Corpus:
    """Prepared text on disk.

    `sha256` names it: equal for equal text (in equal order) and options, whatever the files are called.
    `rejected_path`: a JSON line for all that was read and is not used: source, row, reason, excerpt, bytes, and
    for duplicates `kept`, the place of the document that stays.
    """

    segments: tuple[Segment, ...]
    folder: Path
    sha256: str
    report: CorpusReport

    @property
    def rejected_path(self) -> Path:
        return self.folder / "rejected.jsonl"

    @cached_property
    def _fates(self) -> npt.NDArray[np.int8]:
        fates: npt.NDArray[np.int8] = np.load(self.folder / "fates.npy", allow_pickle=False)
        return fates

    def selection(self, split: Split) -> Selection:
        return self._selections[split]

    @cached_property
    def _selections(self) -> dict[Split, Selection]:
        index = DocumentIndex(self.segments)
        return {"train": self._select(index, TRAIN), "valid": self._select(index, VALID)}

    def _select(self, index: DocumentIndex, code: int) -> Selection:
        chosen = np.flatnonzero(self._fates == code)
        ordinals = index.ordinals()[chosen]
        continues = np.zeros(len(chosen), bool)
        continues[1:] = ordinals[1:] == ordinals[:-1] + 1
        segment = index.segment_of(chosen)
        return Selection(segment.astype(np.int32), (chosen - index.starts[segment]).astype(np.int32), continues)

    def num_documents(self, split: Split) -> int:
        return len(self.selection(split).document_index)

    def num_bytes(self, split: Split) -> int:
        """Bytes of UTF-8 text."""
        return int(self._nbytes(split).sum())

    def documents(self, split: Split) -> Iterator[Document]:
        """All documents of a split, in source order, read as they are asked for."""
        selection = self.selection(split)
        repeats: Counter[str] = Counter()  # only validation text that was given can hold a text twice
        for number, continues in enumerate(selection.continues.tolist()):
            segment = self.segments[selection.segment_index[number]]
            at = int(selection.document_index[number])
            digest = segment.sha256(at)
            name = digest[:16]
            if split == "valid":
                repeats[name] += 1
                name += f"-{repeats[name]}" if repeats[name] > 1 else ""
            text = str(segment.text_bytes(at), "utf-8")
            yield Document(name, text, ":".join(segment.document_place(at)), digest, continues)

    def texts(self, split: Split, max_bytes: int | None = None) -> Iterator[str]:
        """The texts of a split, or an evenly spread, always equal sample of at most about `max_bytes`."""
        selection = self.selection(split)
        chosen = np.arange(len(selection.document_index))
        total = self.num_bytes(split)
        if max_bytes is not None and max_bytes < total:
            ends = np.cumsum(self._nbytes(split))
            wanted = max(1, round(len(chosen) * max_bytes / total))
            chosen = np.unique(np.searchsorted(ends, (np.arange(wanted) + 0.5) * total / wanted, side="right"))
        for number in chosen.tolist():
            segment = self.segments[selection.segment_index[number]]
            yield str(segment.text_bytes(int(selection.document_index[number])), "utf-8")

    def _nbytes(self, split: Split) -> Ints:
        selection = self.selection(split)
        nbytes = np.zeros(len(selection.document_index), np.int64)
        for number in np.unique(selection.segment_index).tolist():
            here = selection.segment_index == number
            nbytes[here] = self.segments[number].document_nbytes[selection.document_index[here]]
        return nbytes


def prepare_corpus(
    paths: Sequence[Path],
    *,
    cache_dir: Path,
    valid_paths: Sequence[Path] = (),
    options: CorpusOptions = CorpusOptions(),
    progress: Progress = SILENT,
) -> Corpus:
    """Read, clean, deduplicate and split text files and folders; what `cache_dir` holds already is used again.

    What `cache_dir` holds and nothing used for 60 days is removed.

    `valid_paths` name validation text: kept whole (only what is unreadable is rejected), never split further, and
    training text alike it is dropped. Then, and only then, `paths` may be empty (text that is only evaluated on).

    Raises DataError when nothing can be read, nothing is left, or what is left cannot be split; UsageError when no
    path was given.
    """
    started = time.monotonic()
    if not paths and not valid_paths:
        raise UsageError("no text was given", hint="give at least one file or folder")
    report = CorpusReport()
    made = MadeSegments()
    _check_folder(cache_dir)
    maker = SegmentMaker(cache_dir, text_column=options.text_column, piece_bytes=options.piece_bytes, progress=progress)
    for role_paths, is_valid_text in ((valid_paths, True), (paths, False)):
        if role_paths:
            leave_out = [] if is_valid_text or not valid_paths else _files_in(valid_paths)
            found = find_files(role_paths, leave_out=leave_out, never_enter=cache_dir)
            part = maker.make(found.files, is_valid_text=is_valid_text)
            made.segments += part.segments
            made.reused += part.reused
            made.encodings += part.encodings
            made.remarks += part.remarks
            report.files += len(found.files)
            report.files_skipped = dict(Counter(report.files_skipped) + found.skipped)
    segments = tuple(made.segments)
    name = _fingerprint(segments, options)
    folder = cache_dir / "corpora" / name
    header = read_cached(folder)
    if header is None or header.get("names") != _names_hash(segments):
        header = _join(segments, folder, options, progress)
    for key, value in header["account"].items():
        setattr(report, key, value)
    report.encodings, report.remarks = dict(made.encodings), made.remarks
    if report.valid_fraction_used > options.valid_fraction:
        held_out = report.valid_bytes / (report.train_bytes + report.valid_bytes)
        report.remarks.append(
            f"so little text that chance left almost none of it for validation: {held_out:.1%} is held out "
            f"({options.valid_fraction:.1%} was asked for)"
        )
    report.segments, report.reused_segments = len(segments), made.reused
    report.rejected_path, report.sha256 = str(folder / "rejected.jsonl"), name
    remove_prepared(cache_dir, unused_seconds=KEPT_SECONDS)
    report.seconds = time.monotonic() - started
    return Corpus(segments, folder, name, report)


def _check_folder(cache_dir: Path) -> None:
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the cache folder cannot be made ({error.strerror})", where=str(cache_dir), hint="choose another place"
        ) from error


def _files_in(paths: Sequence[Path]) -> list[Path]:
    return [file.path for file in find_files(paths).files]


def _fingerprint(segments: Sequence[Segment], options: CorpusOptions) -> str:
    content = [[segment.key, segment.is_valid_text] for segment in segments]
    return hashlib.sha256(json.dumps([VERSION, content, asdict(options)]).encode()).hexdigest()


def _names_hash(segments: Sequence[Segment]) -> str:
    """The names that rejected.jsonl shows; it is written anew when files were renamed."""
    names = [[segment.names, segment.rows_before] for segment in segments]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _join(segments: Sequence[Segment], folder: Path, options: CorpusOptions, progress: Progress) -> dict[str, Any]:
    """Deduplicate and split over all segments, write the outcome, and return its header."""
    index = DocumentIndex(segments)
    rejected: Counter[str] = Counter()
    rejected_bytes: Counter[str] = Counter()
    for segment in segments:
        for rejection in segment.rejections():
            rejected[rejection.reason] += 1
            rejected_bytes[rejection.reason] += rejection.num_bytes
    documents_in = index.count + rejected.total()
    if not index.count:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in rejected.most_common())
        raise DataError(f"no text is left: {reasons or 'the files are empty'}", hint="`rung data check` shows more")
    with progress.task("looking for duplicates", None, "") as _:
        fates, dropped_for, used = decide_fates(
            index,
            seed=options.seed,
            valid_fraction=options.valid_fraction,
            near_duplicate_threshold=options.near_duplicate_threshold,
        )
    nbytes = index.nbytes()
    for code, reason in DROP_REASONS.items():
        if count := int((fates == code).sum()):
            rejected[reason] += count
            rejected_bytes[reason] += int(nbytes[fates == code].sum())
    account = {
        "documents_in": documents_in,
        "train_documents": int((fates == TRAIN).sum()),
        "valid_documents": int((fates == VALID).sum()),
        "train_bytes": int(nbytes[fates == TRAIN].sum()),
        "valid_bytes": int(nbytes[fates == VALID].sum()),
        "rejected": dict(rejected),
        "rejected_bytes": dict(rejected_bytes),
        "valid_fraction_used": used,
    }

    def fill(target: Path) -> None:
        np.save(target / "fates.npy", fates, allow_pickle=False)
        _write_rejected(target / "rejected.jsonl", index, fates, dropped_for)

    header = {"kind": "corpus", "names": _names_hash(segments), "account": account}
    write_folder(folder, fill, header)
    return header


def _write_rejected(path: Path, index: DocumentIndex, fates: npt.NDArray[np.int8], dropped_for: Ints) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, segment in enumerate(index.segments):
            for rejection in segment.rejections():
                source, position = segment.place(rejection.file, rejection.row)
                line = {
                    "source": source,
                    "position": position,
                    "reason": rejection.reason,
                    "excerpt": rejection.excerpt,
                    "bytes": rejection.num_bytes,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            first, last = int(index.starts[number]), int(index.starts[number + 1])
            for document in (np.flatnonzero(fates[first:last] > VALID) + first).tolist():
                at = document - first
                source, position = segment.document_place(at)
                line = {
                    "source": source,
                    "position": position,
                    "reason": DROP_REASONS[int(fates[document])],
                    "excerpt": excerpt(bytes(segment.text_bytes(at)[:480])),
                    "bytes": int(segment.document_nbytes[at]),
                    "kept": index.place(int(dropped_for[document])),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
