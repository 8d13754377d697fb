"""The real weights: all-MiniLM-L6-v2 embeds as in sentence-transformers, and judges STSb as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rung.evaluation.correlation import spearman
from rung.tasks.bases import KNOWN_BASES
from rung.tasks.similarity.encoder import load_sentence_encoder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = KNOWN_BASES["minilm"].installed
    if found is None:
        pytest.skip(f"the weights are not installed: {KNOWN_BASES['minilm'].install_command}")
    return found


def stsb_test(rung_data: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Sentences and scores of the test set: tab-separated, without header or quoting."""
    text = (rung_data / "stsbenchmark/sts-test.csv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.split("\n") if line]
    return [row[5] for row in rows], [row[6] for row in rows], np.array([float(row[4]) for row in rows])


def test_embeddings_are_those_of_sentence_transformers(minilm: Path, rung_data: Path) -> None:
    from sentence_transformers import SentenceTransformer

    first, second, _ = stsb_test(rung_data)
    texts = [*first[::10], *second[::10], "", "word " * 400]
    ours = load_sentence_encoder(minilm).embeddings(texts)
    theirs = SentenceTransformer(str(minilm), device="cpu").encode(texts)
    assert ours.truncated == 1
    assert (ours.vectors * theirs).sum(1).min() >= 0.9999
    np.testing.assert_allclose(ours.vectors, theirs, atol=1e-5)


def test_untrained_minilm_ranks_stsb_as_published(minilm: Path, rung_data: Path) -> None:
    """82.0, the figure that is quoted for the test set."""
    model = load_sentence_encoder(minilm)
    first, second, scores = stsb_test(rung_data)
    alike = model.pair_similarity(model.embed(first), model.embed(second)).astype(np.float64)
    assert 100 * spearman(alike, scores) == pytest.approx(82.0, abs=0.1)
