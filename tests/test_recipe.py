"""The recipe: gaps, overrides, and what is said about wrong keys and contradictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rung.errors import RecipeError
from rung.recipe import Recipe, known_keys, parse_assignment


def test_unknown_key_is_named_with_the_closest_known_one() -> None:
    with pytest.raises(RecipeError, match=r"net\.hiden_size.*did you mean 'net\.hidden_size'"):
        Recipe.parse({"net": {"hiden_size": 64}})
    with pytest.raises(RecipeError, match=r"did you mean 'training\.learning_rate'"):
        Recipe().with_overrides({"train.learning_rate": 0.1})
    with pytest.raises(RecipeError, match=r"did you mean 'net\.dropout'"):
        Recipe().with_overrides({"training.dropout": 0.1})


def test_contradicting_budgets_are_refused() -> None:
    with pytest.raises(RecipeError, match="not both"):
        Recipe.parse({"training": {"minutes": 3, "steps": 100}})
    with pytest.raises(RecipeError, match="not both"):
        Recipe.parse({"training": {"minutes": 3}}).with_overrides({"training.steps": 5})


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"net": {"dropout": 1.5}}, "net.dropout"),
        ({"tokenizer": {"kind": "words"}}, "tokenizer.kind"),
        ({"training": {"minutes": -1}}, "training.minutes"),
        ({"seed": "seven"}, "seed"),
    ],
)
def test_wrong_values_name_their_key(values: dict[str, object], key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        Recipe.parse(values)


def test_toml_json_and_run_folder_give_the_same_recipe(tmp_path: Path) -> None:
    expected = Recipe.parse({"seed": 3, "net": {"hidden_size": 64}, "text": {"files": ["a.txt"]}})
    toml = tmp_path / "recipe.toml"
    toml.write_text('seed = 3\n[net]\nhidden_size = 64\n[text]\nfiles = ["a.txt"]\n', encoding="utf-8")
    plain = tmp_path / "recipe.json"
    plain.write_text(json.dumps(expected.to_json()), encoding="utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rung.json").write_text(json.dumps({"recipe": expected.to_json()}), encoding="utf-8")
    assert Recipe.load(toml) == Recipe.load(plain) == Recipe.load(tmp_path / "run") == expected


def test_a_broken_recipe_file_says_where(tmp_path: Path) -> None:
    broken = tmp_path / "recipe.toml"
    broken.write_text("seed = = 3", encoding="utf-8")
    with pytest.raises(RecipeError, match="neither valid TOML nor JSON") as caught:
        Recipe.load(broken)
    assert caught.value.where == str(broken)
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load(tmp_path / "missing.toml")


def test_assignments_are_read_as_toml_and_bare_words_as_text() -> None:
    assert parse_assignment("net.dropout=0.1") == ("net.dropout", 0.1)
    assert parse_assignment("training.compile = true") == ("training.compile", True)
    assert parse_assignment("tokenizer.kind=byte") == ("tokenizer.kind", "byte")
    assert parse_assignment("net.hidden_size=auto") == ("net.hidden_size", None)
    with pytest.raises(RecipeError, match=r"section\.key=value"):
        parse_assignment("net.dropout")


def test_every_key_can_be_overridden_by_its_own_value() -> None:
    recipe = Recipe()
    values = recipe.model_dump()
    for key in known_keys():
        value = values
        for part in key.split("."):
            value = value[part]
        assert recipe.with_overrides({key: value}) == recipe
