"""SentencePiece's BPE into GGUF files: the scores say what the merges said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sentence_pieces import SPACE, metadata

from rung.data.gguf_tokenizer import tokenizer_from_gguf
from rung.errors import TokenizerError
from rung.export import verify
from rung.export.exporting import export_model
from rung.export.gguf_vocabulary import gguf_vocabulary
from rung.export.source import Source, open_source
from rung.nets.gguf_file import GgufFile

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
ROWS = 448


@pytest.fixture
def source(make_model: Any) -> Iterator[Source]:
    with open_source(make_model("llama-pieces")) as opened:
        yield opened


def change(source: Source, **parts: Any) -> None:
    """Give the definition of the tokenizer other parts."""
    path = source.folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


@pytest.mark.parametrize("add_space", [True, False])
def test_what_is_written_is_what_was_read(source: Source, add_space: bool) -> None:
    given = metadata() | {"tokenizer.ggml.add_space_prefix": add_space}
    definition, config = tokenizer_from_gguf(given, where="here")
    change(source, **definition)
    (source.folder / "tokenizer_config.json").write_text(json.dumps(config))
    values, notes = gguf_vocabulary(source, len(definition["model"]["vocab"]))
    assert notes == ()
    assert tokenizer_from_gguf(values, where="here") == (definition, config)
    for name in ("tokens", "token_type"):
        assert values[f"tokenizer.ggml.{name}"] == given[f"tokenizer.ggml.{name}"]


def test_readers_of_the_file_agree(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TOKENISED", 300)
    monkeypatch.setattr(verify, "SCORED", 14)
    report = export_model(source.folder, tmp_path / "out", to="gguf", dtype="f32")
    (rung,) = (found for found in report.comparisons if found.reader.startswith("Rung"))
    assert report.verified
    assert rung.same_tokens == rung.tokenised == 300
    (theirs,) = (found for found in report.comparisons if found.reader.startswith("transformers"))
    assert theirs.largest_difference is not None
    assert theirs.largest_difference < 1e-4
    with GgufFile(tmp_path / "out" / "model.gguf") as file:
        assert file.metadata["tokenizer.ggml.model"] == "llama"
        assert len(file.metadata["tokenizer.ggml.scores"]) == ROWS


def test_a_split_that_begins_with_a_space_is_written_with_a_note(source: Source) -> None:
    split = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
    change(source, normalizer=None, pre_tokenizer=split)
    values, notes = gguf_vocabulary(source, ROWS)
    assert values["tokenizer.ggml.add_space_prefix"] is True
    assert "begins with one" in notes[0]
    change(source, pre_tokenizer=split | {"prepend_scheme": "never"})
    values, notes = gguf_vocabulary(source, ROWS)
    assert values["tokenizer.ggml.add_space_prefix"] is False
    assert notes == ()


def test_text_that_begins_with_nothing(source: Source) -> None:
    change(source, post_processor=None)
    assert gguf_vocabulary(source, ROWS)[0]["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize(
    "problem", ["a way is missing", "another order", "no byte", "another normaliser", "words alone"]
)
def test_what_scores_cannot_say_is_refused(source: Source, problem: str) -> None:
    path = source.folder / "tokenizer.json"
    definition = json.loads(path.read_text())
    model, told = definition["model"], "every way to join two"
    if problem == "a way is missing":
        model["merges"] = model["merges"][1:]
    elif problem == "another order":
        one = next(merge for merge in model["merges"] if sum("".join(m) == "".join(merge) for m in model["merges"]) > 1)
        model["merges"].append(model["merges"].pop(model["merges"].index(one)))
    elif problem == "no byte":
        model["vocab"]["<0x1F>."] = model["vocab"].pop("<0x1F>")
        told = "<0x1F>"
    elif problem == "another normaliser":
        definition["normalizer"], told = {"type": "NFKC"}, "spaces"
    else:
        definition["normalizer"], told = None, "spaces"
        definition["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": SPACE,
            "prepend_scheme": "first",
            "split": True,
        }
    path.write_text(json.dumps(definition))
    with pytest.raises(TokenizerError, match=told) as caught:
        gguf_vocabulary(source, ROWS)
    assert "--to hf" in str(caught.value)
