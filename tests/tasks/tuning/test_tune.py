"""What all tuners share: where arguments go in a recipe, what wins over what, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from rung.errors import RecipeError, UsageError
from rung.nets.lora import LoraConfig
from rung.recipe import known_keys
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.table import TASKS
from rung.tasks.tuning.tune import tuner_of
from rung.tasks.tuning.tuner import Request

BASE = {"origin": "somewhere"}


@pytest.mark.parametrize("task", TASKS)
def test_what_a_tuner_knows_is_in_its_recipe(task: str) -> None:
    tuner = tuner_of(task)
    assert {"data", "valid", "test"} <= tuner.places.keys()
    assert {*tuner.places.values(), *tuner.budget} <= set(known_keys(tuner.recipe))
    assert f"--task {task}" in tuner.example
    recipe = tuner.recipe_of(Request(task, "base", ["a.jsonl"]), BASE)
    assert tuner.files_of(recipe) == ("a.jsonl",)
    assert recipe.training.is_limited
    assert tuner.recipe.parse(recipe.to_json()) == recipe


@pytest.mark.parametrize("task", TASKS)
def test_one_argument_wins_over_settings_even_when_it_is_zero(task: str) -> None:
    overrides = {"seed": 3, "training.epochs": 2.0, "training.threads": 4}
    asked = Request(task, "base", ["a.jsonl"], seed=0, threads=1, overrides=overrides)
    recipe = tuner_of(task).recipe_of(asked, BASE)
    assert (recipe.seed, recipe.training.threads, recipe.training.epochs) == (0, 1, 2.0)
    with pytest.raises(RecipeError, match="give one of"):
        tuner_of(task).recipe_of(Request(task, "base", ["a.jsonl"], steps=2, overrides=overrides), BASE)


@pytest.mark.parametrize(
    ("task", "wishes", "problem"),
    [
        ("tag", {"text": ["a"]}, "--text means nothing with --task tag"),
        ("text", {"target": "a", "allow_leaks": True}, "--target, --allow-leaks means nothing with --task text"),
        ("chat", {"colour": "red"}, "--colour means nothing with --task chat"),
        ("similarity", {"method": TuningMethod("frozen")}, "no new head"),
        ("classify", {"method": TuningMethod("frozen"), "epochs": 2}, "--epochs means nothing to a frozen body"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(task: str, wishes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        tuner_of(task).require_sense(Request.of(task, "base", ["a.jsonl"], wishes))


def test_what_was_not_asked_for_is_not_refused() -> None:
    wishes = {
        "text": None,
        "source": None,
        "allow_leaks": False,
        "valid": (),
        "method": TuningMethod("lora", LoraConfig()),
    }
    tuner_of("chat").require_sense(Request.of("chat", "base", ["a.jsonl"], wishes))
    with pytest.raises(UsageError, match="there are no conversations to tune on"):
        tuner_of("chat").require_sense(Request.of("chat", "base", [], wishes))
